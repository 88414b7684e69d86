from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_STATE_UNSPECIFIED: _ClassVar[RequestState]
    REQUEST_STATE_WAITING: _ClassVar[RequestState]
    REQUEST_STATE_PREFILLING: _ClassVar[RequestState]
    REQUEST_STATE_KV_READY: _ClassVar[RequestState]
    REQUEST_STATE_TRANSFERRING: _ClassVar[RequestState]
    REQUEST_STATE_DECODING: _ClassVar[RequestState]
    REQUEST_STATE_PARKED: _ClassVar[RequestState]
    REQUEST_STATE_FINISHED: _ClassVar[RequestState]
    REQUEST_STATE_RECOMPUTING: _ClassVar[RequestState]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
    FINISH_REASON_TAKEN_OVER: _ClassVar[FinishReason]
REQUEST_STATE_UNSPECIFIED: RequestState
REQUEST_STATE_WAITING: RequestState
REQUEST_STATE_PREFILLING: RequestState
REQUEST_STATE_KV_READY: RequestState
REQUEST_STATE_TRANSFERRING: RequestState
REQUEST_STATE_DECODING: RequestState
REQUEST_STATE_PARKED: RequestState
REQUEST_STATE_FINISHED: RequestState
REQUEST_STATE_RECOMPUTING: RequestState
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason
FINISH_REASON_TAKEN_OVER: FinishReason

class GenerateRequest(_message.Message):
    __slots__ = ("start", "resume", "credit", "progress", "takeover", "cancel")
    START_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    TAKEOVER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    start: Start
    resume: Resume
    credit: Credit
    progress: Progress
    takeover: Takeover
    cancel: Cancel
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., takeover: _Optional[_Union[Takeover, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("started", "refinement", "tokens", "progress", "finish", "heartbeat", "warning")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    REFINEMENT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    started: Started
    refinement: Refinement
    tokens: Tokens
    progress: CloudProgress
    finish: Finish
    heartbeat: Heartbeat
    warning: CloudWarning
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., refinement: _Optional[_Union[Refinement, _Mapping]] = ..., tokens: _Optional[_Union[Tokens, _Mapping]] = ..., progress: _Optional[_Union[CloudProgress, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., warning: _Optional[_Union[CloudWarning, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("request_id", "protocol", "model", "identity", "prompt_token_ids", "prompt_text", "messages", "output_prefix", "sampling", "limits", "slo", "profile", "credit", "cached_tokens", "logprobs", "label", "keep_ratio", "network")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TEXT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SLO_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    KEEP_RATIO_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    protocol: ProtocolVersion
    model: str
    identity: ModelIdentity
    prompt_token_ids: TokenIds
    prompt_text: str
    messages: ChatMessages
    output_prefix: _containers.RepeatedScalarFieldContainer[int]
    sampling: Sampling
    limits: Limits
    slo: Slo
    profile: DeviceProfile
    credit: Credit
    cached_tokens: int
    logprobs: bool
    label: str
    keep_ratio: float
    network: NetworkEstimate
    def __init__(self, request_id: _Optional[str] = ..., protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ..., model: _Optional[str] = ..., identity: _Optional[_Union[ModelIdentity, _Mapping]] = ..., prompt_token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., prompt_text: _Optional[str] = ..., messages: _Optional[_Union[ChatMessages, _Mapping]] = ..., output_prefix: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., slo: _Optional[_Union[Slo, _Mapping]] = ..., profile: _Optional[_Union[DeviceProfile, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., cached_tokens: _Optional[int] = ..., logprobs: bool = ..., label: _Optional[str] = ..., keep_ratio: _Optional[float] = ..., network: _Optional[_Union[NetworkEstimate, _Mapping]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("generation_id", "resume_token", "next_index", "credit")
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    generation_id: str
    resume_token: bytes
    next_index: int
    credit: Credit
    def __init__(self, generation_id: _Optional[str] = ..., resume_token: _Optional[bytes] = ..., next_index: _Optional[int] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("through",)
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    through: int
    def __init__(self, through: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("prefilled_tokens", "absorbed_tokens", "shown_tokens")
    PREFILLED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ABSORBED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SHOWN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prefilled_tokens: int
    absorbed_tokens: int
    shown_tokens: int
    def __init__(self, prefilled_tokens: _Optional[int] = ..., absorbed_tokens: _Optional[int] = ..., shown_tokens: _Optional[int] = ...) -> None: ...

class Takeover(_message.Message):
    __slots__ = ("index", "prefix_hash")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HASH_FIELD_NUMBER: _ClassVar[int]
    index: int
    prefix_hash: bytes
    def __init__(self, index: _Optional[int] = ..., prefix_hash: _Optional[bytes] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ChatMessages(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "stop_token_ids", "stop")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: _containers.ScalarMap[int, float]
    seed: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    stop: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., seed: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., stop: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_tokens",)
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    def __init__(self, max_tokens: _Optional[int] = ...) -> None: ...

class NetworkEstimate(_message.Message):
    __slots__ = ("added_s", "deviation_s")
    ADDED_S_FIELD_NUMBER: _ClassVar[int]
    DEVIATION_S_FIELD_NUMBER: _ClassVar[int]
    added_s: float
    deviation_s: float
    def __init__(self, added_s: _Optional[float] = ..., deviation_s: _Optional[float] = ...) -> None: ...

class Slo(_message.Message):
    __slots__ = ("ttft_s", "tpot_s")
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    TPOT_S_FIELD_NUMBER: _ClassVar[int]
    ttft_s: float
    tpot_s: float
    def __init__(self, ttft_s: _Optional[float] = ..., tpot_s: _Optional[float] = ...) -> None: ...

class DeviceProfile(_message.Message):
    __slots__ = ("prefill_base_s", "prefill_per_token_s", "prefill_per_token2_s", "decode_s", "handover_s", "relative_error")
    PREFILL_BASE_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_PER_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_PER_TOKEN2_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    HANDOVER_S_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    prefill_base_s: float
    prefill_per_token_s: float
    prefill_per_token2_s: float
    decode_s: float
    handover_s: float
    relative_error: float
    def __init__(self, prefill_base_s: _Optional[float] = ..., prefill_per_token_s: _Optional[float] = ..., prefill_per_token2_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., handover_s: _Optional[float] = ..., relative_error: _Optional[float] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("generation_id", "resume_token", "protocol", "identity", "advice", "credit_through", "credit_cap", "prompt_tokens")
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_THROUGH_FIELD_NUMBER: _ClassVar[int]
    CREDIT_CAP_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    generation_id: str
    resume_token: bytes
    protocol: ProtocolVersion
    identity: ModelIdentity
    advice: Advice
    credit_through: int
    credit_cap: int
    prompt_tokens: int
    def __init__(self, generation_id: _Optional[str] = ..., resume_token: _Optional[bytes] = ..., protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ..., identity: _Optional[_Union[ModelIdentity, _Mapping]] = ..., advice: _Optional[_Union[Advice, _Mapping]] = ..., credit_through: _Optional[int] = ..., credit_cap: _Optional[int] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class Advice(_message.Message):
    __slots__ = ("cloud_tokens", "keep_ratio", "pace_s", "ttft_s", "explanation")
    CLOUD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEEP_RATIO_FIELD_NUMBER: _ClassVar[int]
    PACE_S_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    cloud_tokens: int
    keep_ratio: float
    pace_s: float
    ttft_s: float
    explanation: str
    def __init__(self, cloud_tokens: _Optional[int] = ..., keep_ratio: _Optional[float] = ..., pace_s: _Optional[float] = ..., ttft_s: _Optional[float] = ..., explanation: _Optional[str] = ...) -> None: ...

class Refinement(_message.Message):
    __slots__ = ("kept",)
    KEPT_FIELD_NUMBER: _ClassVar[int]
    kept: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, kept: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("index", "ids", "text", "logprobs")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    index: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    text: str
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, index: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., text: _Optional[str] = ..., logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class CloudProgress(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: RequestState
    def __init__(self, state: _Optional[_Union[RequestState, str]] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("reason", "length", "usage", "timings")
    REASON_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    reason: FinishReason
    length: int
    usage: CloudUsage
    timings: CloudTimings
    def __init__(self, reason: _Optional[_Union[FinishReason, str]] = ..., length: _Optional[int] = ..., usage: _Optional[_Union[CloudUsage, _Mapping]] = ..., timings: _Optional[_Union[CloudTimings, _Mapping]] = ...) -> None: ...

class CloudUsage(_message.Message):
    __slots__ = ("prompt_tokens", "cloud_tokens", "recomputed_tokens", "cached_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CLOUD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cloud_tokens: int
    recomputed_tokens: int
    cached_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., cloud_tokens: _Optional[int] = ..., recomputed_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ...) -> None: ...

class CloudTimings(_message.Message):
    __slots__ = ("waiting_s", "prefill_s", "transfer_s", "decode_s", "slot_s", "list_s")
    WAITING_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    SLOT_S_FIELD_NUMBER: _ClassVar[int]
    LIST_S_FIELD_NUMBER: _ClassVar[int]
    waiting_s: float
    prefill_s: float
    transfer_s: float
    decode_s: float
    slot_s: float
    list_s: float
    def __init__(self, waiting_s: _Optional[float] = ..., prefill_s: _Optional[float] = ..., transfer_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., slot_s: _Optional[float] = ..., list_s: _Optional[float] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class CloudWarning(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StreamFrame(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: GenerateResponse
    error: StreamError
    def __init__(self, response: _Optional[_Union[GenerateResponse, _Mapping]] = ..., error: _Optional[_Union[StreamError, _Mapping]] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "reason", "message", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    message: str
    retry_after_s: float
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class ProtocolVersion(_message.Message):
    __slots__ = ("major", "minor", "features")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelIdentity(_message.Message):
    __slots__ = ("model", "vocab_size", "vocabulary_digest", "special_token_ids", "stop_token_ids", "merges_digest", "template_digest", "weights_digest", "numerics")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MERGES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    model: str
    vocab_size: int
    vocabulary_digest: bytes
    special_token_ids: _containers.RepeatedScalarFieldContainer[int]
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    merges_digest: bytes
    template_digest: bytes
    weights_digest: bytes
    numerics: str
    def __init__(self, model: _Optional[str] = ..., vocab_size: _Optional[int] = ..., vocabulary_digest: _Optional[bytes] = ..., special_token_ids: _Optional[_Iterable[int]] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., merges_digest: _Optional[bytes] = ..., template_digest: _Optional[bytes] = ..., weights_digest: _Optional[bytes] = ..., numerics: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("identity", "max_context_tokens", "protocol")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    identity: ModelIdentity
    max_context_tokens: int
    protocol: ProtocolVersion
    def __init__(self, identity: _Optional[_Union[ModelIdentity, _Mapping]] = ..., max_context_tokens: _Optional[int] = ..., protocol: _Optional[_Union[ProtocolVersion, _Mapping]] = ...) -> None: ...

class CancelGenerationRequest(_message.Message):
    __slots__ = ("generation_id", "resume_token")
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    generation_id: str
    resume_token: bytes
    def __init__(self, generation_id: _Optional[str] = ..., resume_token: _Optional[bytes] = ...) -> None: ...

class CancelGenerationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetGenerationRequest(_message.Message):
    __slots__ = ("generation_id", "resume_token")
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    generation_id: str
    resume_token: bytes
    def __init__(self, generation_id: _Optional[str] = ..., resume_token: _Optional[bytes] = ...) -> None: ...

class GetGenerationResponse(_message.Message):
    __slots__ = ("state", "output", "credit_through", "finish_reason", "steps")
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_THROUGH_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    state: RequestState
    output: _containers.RepeatedScalarFieldContainer[int]
    credit_through: int
    finish_reason: FinishReason
    steps: _containers.RepeatedCompositeFieldContainer[LifeStep]
    def __init__(self, state: _Optional[_Union[RequestState, str]] = ..., output: _Optional[_Iterable[int]] = ..., credit_through: _Optional[int] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., steps: _Optional[_Iterable[_Union[LifeStep, _Mapping]]] = ...) -> None: ...

class LifeStep(_message.Message):
    __slots__ = ("name", "pid", "at_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    AT_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    pid: int
    at_s: float
    def __init__(self, name: _Optional[str] = ..., pid: _Optional[int] = ..., at_s: _Optional[float] = ...) -> None: ...
