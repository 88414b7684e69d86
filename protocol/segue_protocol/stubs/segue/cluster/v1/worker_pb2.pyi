from segue_protocol.stubs.segue.v1 import split_inference_pb2 as _split_inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_PREFILL: _ClassVar[Role]
    ROLE_DECODE: _ClassVar[Role]
    ROLE_AGGREGATED: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_PREFILL: Role
ROLE_DECODE: Role
ROLE_AGGREGATED: Role

class JoinRequest(_message.Message):
    __slots__ = ("register", "heartbeat")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    register: Register
    heartbeat: WorkerStatus
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., heartbeat: _Optional[_Union[WorkerStatus, _Mapping]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("role", "address", "pid", "incarnation", "protocol", "identity", "layout", "max_context_tokens", "slots", "pages", "group", "host_id", "transfers", "pool")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    role: Role
    address: str
    pid: int
    incarnation: bytes
    protocol: _split_inference_pb2.ProtocolVersion
    identity: _split_inference_pb2.ModelIdentity
    layout: KvLayout
    max_context_tokens: int
    slots: int
    pages: int
    group: str
    host_id: str
    transfers: _containers.RepeatedScalarFieldContainer[str]
    pool: bytes
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., address: _Optional[str] = ..., pid: _Optional[int] = ..., incarnation: _Optional[bytes] = ..., protocol: _Optional[_Union[_split_inference_pb2.ProtocolVersion, _Mapping]] = ..., identity: _Optional[_Union[_split_inference_pb2.ModelIdentity, _Mapping]] = ..., layout: _Optional[_Union[KvLayout, _Mapping]] = ..., max_context_tokens: _Optional[int] = ..., slots: _Optional[int] = ..., pages: _Optional[int] = ..., group: _Optional[str] = ..., host_id: _Optional[str] = ..., transfers: _Optional[_Iterable[str]] = ..., pool: _Optional[bytes] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("lease_s", "drain", "switch_role")
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    SWITCH_ROLE_FIELD_NUMBER: _ClassVar[int]
    lease_s: float
    drain: Drain
    switch_role: SwitchRole
    def __init__(self, lease_s: _Optional[float] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., switch_role: _Optional[_Union[SwitchRole, _Mapping]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SwitchRole(_message.Message):
    __slots__ = ("role",)
    ROLE_FIELD_NUMBER: _ClassVar[int]
    role: Role
    def __init__(self, role: _Optional[_Union[Role, str]] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("worker", "drain", "switch_role")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    SWITCH_ROLE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    drain: Drain
    switch_role: SwitchRole
    def __init__(self, worker: _Optional[str] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., switch_role: _Optional[_Union[SwitchRole, _Mapping]] = ...) -> None: ...

class ControlResponse(_message.Message):
    __slots__ = ("worker", "incarnation")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    worker: str
    incarnation: bytes
    def __init__(self, worker: _Optional[str] = ..., incarnation: _Optional[bytes] = ...) -> None: ...

class KvLayout(_message.Message):
    __slots__ = ("num_layers", "num_kv_heads", "head_dim", "dtype")
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    def __init__(self, num_layers: _Optional[int] = ..., num_kv_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., dtype: _Optional[str] = ...) -> None: ...

class KvTicket(_message.Message):
    __slots__ = ("pid", "descriptor", "incarnation", "slot", "generation", "layout", "token_count", "layers", "digest", "digest_kind", "place", "tcp", "nixl", "early")
    PID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DIGEST_KIND_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    TCP_FIELD_NUMBER: _ClassVar[int]
    NIXL_FIELD_NUMBER: _ClassVar[int]
    EARLY_FIELD_NUMBER: _ClassVar[int]
    pid: int
    descriptor: int
    incarnation: bytes
    slot: int
    generation: int
    layout: KvLayout
    token_count: int
    layers: _containers.RepeatedCompositeFieldContainer[LayerSpan]
    digest: bytes
    digest_kind: str
    place: KvPlace
    tcp: TcpSource
    nixl: NixlSource
    early: bool
    def __init__(self, pid: _Optional[int] = ..., descriptor: _Optional[int] = ..., incarnation: _Optional[bytes] = ..., slot: _Optional[int] = ..., generation: _Optional[int] = ..., layout: _Optional[_Union[KvLayout, _Mapping]] = ..., token_count: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[LayerSpan, _Mapping]]] = ..., digest: _Optional[bytes] = ..., digest_kind: _Optional[str] = ..., place: _Optional[_Union[KvPlace, _Mapping]] = ..., tcp: _Optional[_Union[TcpSource, _Mapping]] = ..., nixl: _Optional[_Union[NixlSource, _Mapping]] = ..., early: bool = ...) -> None: ...

class TcpSource(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class NixlSource(_message.Message):
    __slots__ = ("metadata", "data_address", "generations_address", "layers_done_address")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_DONE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    metadata: bytes
    data_address: int
    generations_address: int
    layers_done_address: int
    def __init__(self, metadata: _Optional[bytes] = ..., data_address: _Optional[int] = ..., generations_address: _Optional[int] = ..., layers_done_address: _Optional[int] = ...) -> None: ...

class KvPlace(_message.Message):
    __slots__ = ("pool", "reservation", "pages")
    POOL_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    pool: bytes
    reservation: int
    pages: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, pool: _Optional[bytes] = ..., reservation: _Optional[int] = ..., pages: _Optional[_Iterable[int]] = ...) -> None: ...

class LayerSpan(_message.Message):
    __slots__ = ("offset_bytes", "length_bytes")
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    length_bytes: int
    def __init__(self, offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ...) -> None: ...

class PrefillRequest(_message.Message):
    __slots__ = ("job", "release")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    job: PrefillJob
    release: ReleaseKv
    def __init__(self, job: _Optional[_Union[PrefillJob, _Mapping]] = ..., release: _Optional[_Union[ReleaseKv, _Mapping]] = ...) -> None: ...

class PrefillJob(_message.Message):
    __slots__ = ("generation_id", "epoch", "token_ids", "prompt_tokens", "sampling", "cache_salt", "shared_tokens", "place", "keep_ratio")
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    SHARED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    KEEP_RATIO_FIELD_NUMBER: _ClassVar[int]
    generation_id: str
    epoch: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    prompt_tokens: int
    sampling: _split_inference_pb2.Sampling
    cache_salt: bytes
    shared_tokens: int
    place: KvPlace
    keep_ratio: float
    def __init__(self, generation_id: _Optional[str] = ..., epoch: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., prompt_tokens: _Optional[int] = ..., sampling: _Optional[_Union[_split_inference_pb2.Sampling, _Mapping]] = ..., cache_salt: _Optional[bytes] = ..., shared_tokens: _Optional[int] = ..., place: _Optional[_Union[KvPlace, _Mapping]] = ..., keep_ratio: _Optional[float] = ...) -> None: ...

class ReleaseKv(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PrefillResponse(_message.Message):
    __slots__ = ("accepted", "prefilled", "started", "refined")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PREFILLED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    REFINED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    prefilled: Prefilled
    started: Started
    refined: Refined
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., prefilled: _Optional[_Union[Prefilled, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., refined: _Optional[_Union[Refined, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: KvTicket
    def __init__(self, ticket: _Optional[_Union[KvTicket, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refined(_message.Message):
    __slots__ = ("kept", "list_s")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    LIST_S_FIELD_NUMBER: _ClassVar[int]
    kept: _containers.RepeatedCompositeFieldContainer[_split_inference_pb2.Range]
    list_s: float
    def __init__(self, kept: _Optional[_Iterable[_Union[_split_inference_pb2.Range, _Mapping]]] = ..., list_s: _Optional[float] = ...) -> None: ...

class Prefilled(_message.Message):
    __slots__ = ("epoch", "index", "token_id", "ticket", "prefill_s", "logprob", "cached_tokens", "list_s")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LIST_S_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    index: int
    token_id: int
    ticket: KvTicket
    prefill_s: float
    logprob: float
    cached_tokens: int
    list_s: float
    def __init__(self, epoch: _Optional[int] = ..., index: _Optional[int] = ..., token_id: _Optional[int] = ..., ticket: _Optional[_Union[KvTicket, _Mapping]] = ..., prefill_s: _Optional[float] = ..., logprob: _Optional[float] = ..., cached_tokens: _Optional[int] = ..., list_s: _Optional[float] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("reserve", "admit", "credit", "prefetch")
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    ADMIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    reserve: Reserve
    admit: Admit
    credit: _split_inference_pb2.Credit
    prefetch: Prefetch
    def __init__(self, reserve: _Optional[_Union[Reserve, _Mapping]] = ..., admit: _Optional[_Union[Admit, _Mapping]] = ..., credit: _Optional[_Union[_split_inference_pb2.Credit, _Mapping]] = ..., prefetch: _Optional[_Union[Prefetch, _Mapping]] = ...) -> None: ...

class Prefetch(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: KvTicket
    def __init__(self, ticket: _Optional[_Union[KvTicket, _Mapping]] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("generation_id", "tokens")
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    generation_id: str
    tokens: int
    def __init__(self, generation_id: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class Admit(_message.Message):
    __slots__ = ("epoch", "ticket", "token_ids", "prompt_tokens", "sampling", "credit_through", "max_tokens")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CREDIT_THROUGH_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    ticket: KvTicket
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    prompt_tokens: int
    sampling: _split_inference_pb2.Sampling
    credit_through: int
    max_tokens: int
    def __init__(self, epoch: _Optional[int] = ..., ticket: _Optional[_Union[KvTicket, _Mapping]] = ..., token_ids: _Optional[_Iterable[int]] = ..., prompt_tokens: _Optional[int] = ..., sampling: _Optional[_Union[_split_inference_pb2.Sampling, _Mapping]] = ..., credit_through: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("reserved", "pulled", "tokens", "parked", "evicted", "ended", "extension_refused")
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    PULLED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_REFUSED_FIELD_NUMBER: _ClassVar[int]
    reserved: Reserved
    pulled: Pulled
    tokens: DecodedTokens
    parked: Parked
    evicted: Evicted
    ended: Ended
    extension_refused: ExtensionRefused
    def __init__(self, reserved: _Optional[_Union[Reserved, _Mapping]] = ..., pulled: _Optional[_Union[Pulled, _Mapping]] = ..., tokens: _Optional[_Union[DecodedTokens, _Mapping]] = ..., parked: _Optional[_Union[Parked, _Mapping]] = ..., evicted: _Optional[_Union[Evicted, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., extension_refused: _Optional[_Union[ExtensionRefused, _Mapping]] = ...) -> None: ...

class Reserved(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: KvPlace
    def __init__(self, place: _Optional[_Union[KvPlace, _Mapping]] = ...) -> None: ...

class Pulled(_message.Message):
    __slots__ = ("transfer_s", "bytes")
    TRANSFER_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    transfer_s: float
    bytes: int
    def __init__(self, transfer_s: _Optional[float] = ..., bytes: _Optional[int] = ...) -> None: ...

class DecodedTokens(_message.Message):
    __slots__ = ("epoch", "index", "ids", "logprobs")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    index: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, epoch: _Optional[int] = ..., index: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class Parked(_message.Message):
    __slots__ = ("length",)
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    length: int
    def __init__(self, length: _Optional[int] = ...) -> None: ...

class Evicted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExtensionRefused(_message.Message):
    __slots__ = ("through",)
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    through: int
    def __init__(self, through: _Optional[int] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: _split_inference_pb2.FinishReason
    def __init__(self, reason: _Optional[_Union[_split_inference_pb2.FinishReason, str]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClusterStatus(_message.Message):
    __slots__ = ("gateway_pid", "sessions_running", "tasks_running", "open_streams", "dropped_tokens_total", "workers", "groups")
    GATEWAY_PID_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    TASKS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    OPEN_STREAMS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    gateway_pid: int
    sessions_running: int
    tasks_running: int
    open_streams: int
    dropped_tokens_total: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    groups: _containers.RepeatedCompositeFieldContainer[GroupStatus]
    def __init__(self, gateway_pid: _Optional[int] = ..., sessions_running: _Optional[int] = ..., tasks_running: _Optional[int] = ..., open_streams: _Optional[int] = ..., dropped_tokens_total: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[GroupStatus, _Mapping]]] = ...) -> None: ...

class GroupStatus(_message.Message):
    __slots__ = ("name", "prefill_workers", "decode_workers", "prefill_s", "decode_s", "cloud_tokens", "requests_per_s", "rejected_share", "balanced_prefill_workers", "time_to_first_token_s", "time_per_output_token_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PREFILL_WORKERS_FIELD_NUMBER: _ClassVar[int]
    DECODE_WORKERS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    CLOUD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_S_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SHARE_FIELD_NUMBER: _ClassVar[int]
    BALANCED_PREFILL_WORKERS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    TIME_PER_OUTPUT_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    prefill_workers: int
    decode_workers: int
    prefill_s: float
    decode_s: float
    cloud_tokens: float
    requests_per_s: float
    rejected_share: float
    balanced_prefill_workers: float
    time_to_first_token_s: float
    time_per_output_token_s: float
    def __init__(self, name: _Optional[str] = ..., prefill_workers: _Optional[int] = ..., decode_workers: _Optional[int] = ..., prefill_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., cloud_tokens: _Optional[float] = ..., requests_per_s: _Optional[float] = ..., rejected_share: _Optional[float] = ..., balanced_prefill_workers: _Optional[float] = ..., time_to_first_token_s: _Optional[float] = ..., time_per_output_token_s: _Optional[float] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("role", "pid", "incarnation", "slots_used", "slots", "pages_used", "pages", "running", "parked", "prefilled_tokens_total", "decode_steps_total", "decoded_tokens_total", "transfers_total", "transfer_bytes_total", "rejections_total", "integrity_error", "draining", "cached_tokens_total", "group", "ready", "unready_reason", "transfer_failures", "leases_expired_total", "quarantined_bytes", "transfer")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PAGES_USED_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    PREFILLED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DECODE_STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DECODED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    INTEGRITY_ERROR_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    UNREADY_REASON_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FAILURES_FIELD_NUMBER: _ClassVar[int]
    LEASES_EXPIRED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    role: Role
    pid: int
    incarnation: bytes
    slots_used: int
    slots: int
    pages_used: int
    pages: int
    running: int
    parked: int
    prefilled_tokens_total: int
    decode_steps_total: int
    decoded_tokens_total: int
    transfers_total: int
    transfer_bytes_total: int
    rejections_total: int
    integrity_error: str
    draining: bool
    cached_tokens_total: int
    group: str
    ready: bool
    unready_reason: str
    transfer_failures: _containers.RepeatedCompositeFieldContainer[ReasonCount]
    leases_expired_total: int
    quarantined_bytes: int
    transfer: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., pid: _Optional[int] = ..., incarnation: _Optional[bytes] = ..., slots_used: _Optional[int] = ..., slots: _Optional[int] = ..., pages_used: _Optional[int] = ..., pages: _Optional[int] = ..., running: _Optional[int] = ..., parked: _Optional[int] = ..., prefilled_tokens_total: _Optional[int] = ..., decode_steps_total: _Optional[int] = ..., decoded_tokens_total: _Optional[int] = ..., transfers_total: _Optional[int] = ..., transfer_bytes_total: _Optional[int] = ..., rejections_total: _Optional[int] = ..., integrity_error: _Optional[str] = ..., draining: bool = ..., cached_tokens_total: _Optional[int] = ..., group: _Optional[str] = ..., ready: bool = ..., unready_reason: _Optional[str] = ..., transfer_failures: _Optional[_Iterable[_Union[ReasonCount, _Mapping]]] = ..., leases_expired_total: _Optional[int] = ..., quarantined_bytes: _Optional[int] = ..., transfer: _Optional[str] = ...) -> None: ...

class ReasonCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...
