"""An app on a device: one question from the command line, answered by two machines."""

import sys

from segue_device import Client, SegueError

MARKS = {"takeover": " ⇥ ", "fallback": " [one side is gone] "}


def main(model: str, cloud: str, question: str) -> int:
    """Returns 0, or 1 after an error, with its words on stderr."""
    try:
        with Client(cloud=cloud, model=model) as client:
            with client.session(max_tokens=60).stream(question) as answer:
                for event in answer:
                    print(getattr(event, "text", MARKS.get(event.type, "")), end="", flush=True)
                usage = answer.final().usage
    except SegueError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(f"\n{usage.cloud_tokens} tokens from the cloud, {usage.device_tokens} from this device")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
