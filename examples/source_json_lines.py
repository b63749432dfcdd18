"""JSON lines as a stream: the text of a key, and bad lines that are skipped and counted.

Usage: python examples/source_json_lines.py
"""

import tempfile
from pathlib import Path

import penstock

LINES = '{"text": "Hello, "}\n\n{"text": "world"}\r\nno JSON\n{"done": true}\n{"text": "!"}'


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, penstock.System() as system:
        path = Path(folder) / "answer.jsonl"
        path.write_bytes(LINES.encode())
        stream = system.stream_from(penstock.sources.json_lines(path, text="text", on_bad_line="skip"))
        print(stream.result(10).text)
        statistics = stream.statistics()
        print(f"{statistics.source_bytes} bytes, {statistics.skipped} line skipped")


if __name__ == "__main__":
    main()
