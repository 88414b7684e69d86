"""The public gRPC service without the SDK: the generated stubs, and nothing else of Segue.

A client without a model has no tokenizer: it sends messages, gives the cloud credit
for the whole answer, and gets text.
"""

import sys
from collections.abc import Iterator

import grpc

from segue_protocol.stubs.segue.v1 import split_inference_pb2 as segue
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub

MAX_TOKENS = 60
TIMEOUT_S = 60.0


def start(question: str) -> segue.GenerateRequest:
    """The first message of a stream."""
    messages = segue.ChatMessages(messages=[segue.ChatMessage(role="user", content=question)])
    return segue.GenerateRequest(
        start=segue.Start(
            request_id="a-client-without-the-sdk",
            protocol=segue.ProtocolVersion(major=1),
            messages=messages,
            sampling=segue.Sampling(temperature=0.8, top_k=40, seed=4),
            limits=segue.Limits(max_tokens=MAX_TOKENS),
            credit=segue.Credit(through=MAX_TOKENS),
        )
    )


def answer(stub: SplitInferenceServiceStub, question: str) -> Iterator[str]:
    """The pieces of the answer's text. Raises grpc.RpcError with the cloud's reason."""
    for response in stub.Generate(iter([start(question)]), timeout=TIMEOUT_S):
        if response.HasField("tokens"):
            yield response.tokens.text


def main(address: str, question: str) -> int:
    """Returns 0, or 1 after an error, with its words on stderr."""
    with grpc.insecure_channel(address) as channel:
        stub = SplitInferenceServiceStub(channel)
        try:
            print(stub.GetModel(segue.GetModelRequest()).identity.model)
            for text in answer(stub, question):
                print(text, end="", flush=True)
        except grpc.RpcError as error:
            print(error, file=sys.stderr)
            return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
