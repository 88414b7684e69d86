"""One cluster for all tests that leave it healthy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demos.cluster import Cluster, running_cluster
from tests.processes import TINY


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster(TINY, "--max-batch", "32", "--unclaimed-s", "5") as running:
        yield running
