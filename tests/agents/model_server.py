"""A model on loopback: enough of three protocols that real agents take it for their provider.

It serves the Anthropic messages API, the OpenAI responses API and OpenAI chat completions, streamed and whole. What it
does is scripted: one `Turn` for each request that asks for an answer, and the last one over again. Requests that only
want a title or a token count get a plain answer and use up no turn.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Kind = Literal["say", "run", "refuse", "cut", "hang"]
Event = tuple[str, dict[str, Any]]

INPUT, CACHED, OUTPUT = 100, 40, 7  # tokens of every answer; INPUT are those that no cache held


@dataclass(frozen=True)
class Turn:
    """What the model does once: say `text`, have the agent run the shell line `text`, refuse with an HTTP `status`
    (an error of this `code` and `headers`, `body` merged into it), cut the connection amid the answer, or fall silent
    amid it."""

    kind: Kind
    text: str = ""
    status: int = 200
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


def say(text: str) -> Turn:
    return Turn("say", text)


def run(line: str) -> Turn:
    return Turn("run", line)


def refuse(status: int, code: str, text: str, headers: Mapping[str, str] | None = None, **body: Any) -> Turn:
    return Turn("refuse", text, status, code, headers or {}, body)


CUT, HANG = Turn("cut"), Turn("hang")


class ModelServer:
    """A scripted model at `url`, for the length of a `with` block. `requests` are the paths that it was asked."""

    def __init__(self, *script: Turn) -> None:
        self.script = script
        self.requests: list[str] = []
        self.last = ""  # the body of the last request
        self.over = threading.Event()
        self._served = itertools.count()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.model = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def next_turn(self) -> Turn:
        with self._lock:
            return self.script[min(next(self._served), len(self.script) - 1)]

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def model(self) -> ModelServer:
        return self.server.model  # type: ignore[attr-defined,no-any-return]

    def do_HEAD(self) -> None:
        self._whole(200, {})

    def do_GET(self) -> None:
        self.model.requests.append(f"GET {self.path}")
        self._whole(200, {"object": "list", "data": [{"id": "a-model", "object": "model"}], "models": []})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        path = self.path.partition("?")[0]
        self.model.requests.append(f"POST {path}")
        self.model.last = raw.decode("utf-8", "replace")
        try:
            asked = json.loads(raw)
        except ValueError:
            return self._whole(400, {"error": {"message": "not JSON"}})
        for end, answer in _PROTOCOLS.items():
            if path.endswith(end):
                return self._answer(answer, asked)
        return self._whole(200 if "count_tokens" in path else 404, {"input_tokens": INPUT})

    def _answer(self, protocol: type[Messages], asked: dict[str, Any]) -> None:
        speech = protocol(asked)
        turn = self.model.next_turn() if speech.tools else say("a title")
        if turn.kind == "refuse":
            return self._whole(turn.status, speech.error(turn), turn.headers)
        if turn.kind == "run" and speech.ran:
            turn = say("done")
        events = list(speech.events(turn))
        if not asked.get("stream"):
            if turn.kind == "hang":
                self.model.over.wait()
            return self._whole(200, speech.whole(turn), cut=turn.kind in ("cut", "hang"))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        for name, value in turn.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if turn.kind in ("cut", "hang"):
            events = events[: len(events) // 2]
        for name, data in events:
            line = data["raw"] if "raw" in data else json.dumps(data)
            self.wfile.write((f"event: {name}\n" if name else "").encode() + f"data: {line}\n\n".encode())
            self.wfile.flush()
        if turn.kind == "hang":
            self.model.over.wait()
        return None

    def _whole(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, cut: bool = False
    ) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**own, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)


class Messages:
    """The Anthropic messages API."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.tools = bool(asked.get("tools"))
        self.ran = False

    def error(self, turn: Turn) -> dict[str, Any]:
        return {"type": "error", "error": {"type": turn.code, "message": turn.text, **turn.body}, "request_id": "req_1"}

    def _usage(self, out: int) -> dict[str, int]:
        return {
            "input_tokens": INPUT, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0,
            "output_tokens": out,
        }  # fmt: skip

    def _content(self, turn: Turn) -> dict[str, Any]:
        if turn.kind == "run":
            given = {"command": turn.text, "description": "what it was told"}
            return {"type": "tool_use", "id": _id("toolu_"), "name": "Bash", "input": given}
        return {"type": "text", "text": turn.text or "word " * 20}

    def whole(self, turn: Turn) -> dict[str, Any]:
        content = self._content(turn)
        return {
            "id": _id("msg_"), "type": "message", "role": "assistant", "model": self.asked["model"],
            "content": [content], "stop_reason": "tool_use" if turn.kind == "run" else "end_turn",
            "stop_sequence": None, "usage": self._usage(OUTPUT),
        }  # fmt: skip

    def events(self, turn: Turn) -> Iterator[Event]:
        message = self.whole(turn)
        content = message["content"][0]
        opened = {**message, "content": [], "stop_reason": None, "usage": self._usage(1)}
        empty = {**content, "input": {}} if turn.kind == "run" else {**content, "text": ""}
        yield "message_start", {"type": "message_start", "message": opened}
        yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": empty}
        if turn.kind == "run":
            delta = {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}
        else:
            delta = {"type": "text_delta", "text": content["text"]}
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": 0}
        stopped = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        yield "message_delta", {"type": "message_delta", "delta": stopped, "usage": self._usage(OUTPUT)}
        yield "message_stop", {"type": "message_stop"}


class Responses(Messages):
    """The OpenAI responses API."""

    def error(self, turn: Turn) -> dict[str, Any]:
        return {"error": {"type": turn.code, "code": turn.code, "message": turn.text, **turn.body}}

    def whole(self, turn: Turn) -> dict[str, Any]:
        return {
            "id": _id("resp_"), "object": "response", "created_at": int(time.time()), "status": "completed",
            "model": self.asked["model"], "output": [self._item(turn)],
            "usage": {
                "input_tokens": INPUT + CACHED, "input_tokens_details": {"cached_tokens": CACHED},
                "output_tokens": OUTPUT, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": INPUT + CACHED + OUTPUT,
            },
        }  # fmt: skip

    def _item(self, turn: Turn) -> dict[str, Any]:
        if turn.kind == "run":
            return {"type": "function_call", "id": _id("fc_"), "call_id": _id("call_"), **self._call(turn.text)}
        text = {"type": "output_text", "text": turn.text or "word " * 20, "annotations": []}
        return {"type": "message", "id": _id("msg_"), "role": "assistant", "status": "completed", "content": [text]}

    def _call(self, line: str) -> dict[str, Any]:
        """A call of whatever this agent names its shell."""
        names = {tool.get("name") or tool.get("type") for tool in self.asked["tools"]}
        if "exec_command" in names:
            return {"name": "exec_command", "arguments": json.dumps({"cmd": line})}
        if "shell_command" in names:
            return {"name": "shell_command", "arguments": json.dumps({"command": line})}
        return {"name": "shell", "arguments": json.dumps({"command": ["sh", "-c", line]})}

    def events(self, turn: Turn) -> Iterator[Event]:
        response = self.whole(turn)
        item = response["output"][0]
        created = {**response, "status": "in_progress", "output": [], "usage": None}
        for number, (name, data) in enumerate(
            [
                ("response.created", {"response": created}),
                ("response.output_item.added", {"output_index": 0, "item": item}),
                ("response.output_item.done", {"output_index": 0, "item": item}),
                ("response.completed", {"response": response}),
            ]
        ):
            yield name, {"type": name, "sequence_number": number, **data}


class Completions(Responses):
    """OpenAI chat completions. `run` is a fenced block: agents that speak it find their calls in the text."""

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__(asked)
        self.tools = True

    def _text(self, turn: Turn) -> str:
        return f"```shell\n{turn.text}\n```" if turn.kind == "run" else turn.text or "word " * 20

    def _used(self) -> dict[str, Any]:
        return {
            "prompt_tokens": INPUT + CACHED, "completion_tokens": OUTPUT, "total_tokens": INPUT + CACHED + OUTPUT,
            "prompt_tokens_details": {"cached_tokens": CACHED},
        }  # fmt: skip

    def whole(self, turn: Turn) -> dict[str, Any]:
        said = {"role": "assistant", "content": self._text(turn)}
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": self.asked["model"],
            "choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": self._used(),
        }  # fmt: skip

    def events(self, turn: Turn) -> Iterator[Event]:
        head = {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": int(time.time()),
            "model": self.asked["model"],
        }  # fmt: skip
        text = self._text(turn)
        for piece in itertools.batched(text, 8) if hasattr(itertools, "batched") else _pieces(text):
            delta = {"role": "assistant", "content": "".join(piece)}
            yield "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield "", {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield "", {**head, "choices": [], "usage": self._used()}
        yield "", {"raw": "[DONE]"}


def _pieces(text: str) -> Sequence[str]:
    return [text[at : at + 8] for at in range(0, len(text), 8)]


_numbers = itertools.count(1)


def _id(prefix: str) -> str:
    return f"{prefix}{next(_numbers):024d}"


_PROTOCOLS: dict[str, type[Messages]] = {
    "/messages": Messages, "/responses": Responses, "/chat/completions": Completions
}  # fmt: skip
