"""The generated messages under two short names.

``public`` is ``segue.v1`` (device and cloud), ``private`` is
``segue.cluster.v1`` (gateway and workers).
"""

from segue_protocol.stubs.segue.cluster.v1 import worker_pb2 as private
from segue_protocol.stubs.segue.v1 import split_inference_pb2 as public

__all__ = ["private", "public"]
