"""A whole body of each protocol, with every kind of message and part: what mutations of requests start from."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["BODIES"]

PNG: Final = "data:image/png;base64,QQ=="
SCHEMA: Final = {"type": "object"}
OWN: Final = {
    "provider": "openai",
    "stream_id": "s1",
    "on_orphan": 5,
    "metadata": {"a": "b"},
    "options": {"batch_size": 2},
    "request_options": {"max_retries": 0},
    "approval": "wait",
}
FUNCTION: Final = {"name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}
FORMAT: Final = {"name": "answer", "schema": SCHEMA, "strict": True}

CHAT: Final[dict[str, Any]] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "Hm, so.",
            "reasoning_details": [
                {
                    "type": "reasoning.text",
                    "text": "Hm",
                    "signature": "c2ln",
                    "id": "r1",
                    "penstock": {"kind": "thinking", "provider": "anthropic", "start": 0, "end": 2},
                },
                {
                    "type": "reasoning.encrypted",
                    "data": "c2ln",
                    "penstock": {"kind": "reasoning.encrypted", "provider": "openrouter"},
                },
            ],
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a":1}'},
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                },
                {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "1"}]},
        {"role": "tool", "tool_call_id": "c2", "content": "done", "name": "run"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": "Go on."},
    ],
    "tools": [{"type": "function", "function": FUNCTION}, {"type": "function", "function": {"name": "run"}}],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "parallel_tool_calls": True,
    "response_format": {"type": "json_schema", "json_schema": FORMAT},
    "stop": ["!"],
    "max_tokens": 50,
    "temperature": 0.5,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "timeout": 5,
    "extra_body": {"b": 2},
    "penstock": OWN,
}

FILES: Final[dict[str, Any]] = {
    "model": "m",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="}},
                {"type": "file", "file": {"filename": "a.txt", "file_data": "QQ=="}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
                {"type": "text", "text": "Look."},
            ],
        }
    ],
}

CHOSEN: Final[dict[str, Any]] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [{"type": "custom", "custom": {"name": "run", "format": {"type": "grammar", "grammar": {"syntax": "x"}}}}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "custom", "custom": {"name": "run"}}]},
    },
    "response_format": {"type": "text"},
    "max_completion_tokens": 50,
}

RESPONSES: Final[dict[str, Any]] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look."},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
            ],
        },
        {"type": "message", "role": "developer", "content": "Hm.", "name": "boss"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": "c2ln",
            "penstock": {"kind": "thinking", "provider": "anthropic", "id": "r1"},
        },
        {
            "type": "message",
            "id": "msg_resp_1_0",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "One moment.", "annotations": [], "logprobs": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c1",
            "name": "add",
            "arguments": '{"a":1}',
            "penstock": {"signature": "c2ln"},
        },
        {"type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "ls"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "message", "role": "user", "content": "Go on."},
    ],
    "tools": [
        {"type": "function", **FUNCTION, "defer_loading": False},
        {"type": "namespace", "name": "more", "tools": [{"type": "function", "name": "run"}]},
    ],
    "tool_choice": {"type": "function", "name": "add"},
    "parallel_tool_calls": True,
    "text": {"format": {"type": "json_schema", **FORMAT}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "max_output_tokens": 50,
    "top_logprobs": 0,
    "store": False,
    "stream": True,
    "background": False,
    "metadata": {"a": "b"},
    "timeout": 5,
    "penstock": {"stream_id": "s1"},
}

ITEMS: Final[dict[str, Any]] = {
    "model": "m",
    "input": [
        {"role": "user", "content": "Hi"},
        {"type": "shell_call", "call_id": "c3", "action": {"commands": ["ls"]}, "environment": {"type": "local"}},
        {"type": "computer_call", "call_id": "c4", "action": {"type": "click", "x": 1}, "pending_safety_checks": []},
        {"type": "mcp_approval_request", "id": "c5", "server_label": "s", "name": "n", "arguments": "{}"},
        {"type": "apply_patch_call", "call_id": "c6", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "tool_search_call", "call_id": "c7", "execution": "client", "arguments": {"q": "x"}},
        {"type": "local_shell_call", "call_id": "c8", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c3", "output": [{"stdout": "a", "stderr": ""}]},
        {"type": "computer_call_output", "call_id": "c4", "output": {"type": "computer_screenshot", "image_url": PNG}},
        {"type": "mcp_approval_response", "approval_request_id": "c5", "approve": True, "reason": "fine"},
        {"type": "apply_patch_call_output", "call_id": "c6", "status": "failed", "output": "no"},
        {"type": "tool_search_output", "call_id": "c7", "execution": "client", "tools": []},
        {"type": "local_shell_call_output", "call_id": "c8", "output": "a"},
    ],
    "tools": [
        {"type": "web_search", "filters": {"allowed_domains": ["a.example"]}},
    ],
    "tool_choice": {"type": "web_search"},
    "parallel_tool_calls": True,
}

ALLOWED: Final[dict[str, Any]] = {
    "model": "m",
    "instructions": [{"type": "message", "role": "developer", "content": "Be brief."}],
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="},
                {"type": "input_file", "file_url": "https://a.example/b.pdf"},
                {"type": "input_text", "text": "Look."},
            ],
        },
    ],
    "tools": [
        {"type": "custom", "name": "run", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "function", "name": "add", "parameters": SCHEMA},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
}

ANTHROPIC: Final[dict[str, Any]] = {
    "model": "m",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
                {
                    "type": "document",
                    "title": "a.pdf",
                    "context": "old",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
                },
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "d"}]}},
                {
                    "type": "search_result",
                    "title": "t",
                    "source": "https://a.example",
                    "content": [{"type": "text", "text": "f"}],
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZGF0YQ=="},
                {
                    "type": "text",
                    "text": "I search.",
                    "citations": [
                        {"type": "web_search_result_location", "url": "https://a.example", "encrypted_index": "x"}
                    ],
                },
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": 1}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}, "caller": {"type": "direct"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
                    ],
                },
                {"type": "text", "text": "Go on."},
            ],
        },
        {"role": "assistant", "content": "So:"},
    ],
    "metadata": {"user_id": "u"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "output_format": {"type": "json_schema", "schema": SCHEMA},
    "stop_sequences": ["!"],
    "temperature": 1.0,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
    "tools": [
        {"name": "add", "description": "Adds.", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "top_k": 5,
    "container": {"skills": []},
    "anthropic_beta": ["a"],
    "stream": True,
    "timeout": 5,
    "penstock": {"stream_id": "s1"},
}

UI: Final[dict[str, Any]] = {
    "id": "c-1",
    "trigger": "submit-message",
    "messageId": "u1",
    "model": "m",
    "provider": "groq",
    "system": "Be brief.",
    "tools": {"add": {"description": "Adds.", "parameters": SCHEMA}, "now": {"inputSchema": SCHEMA}},
    "tool_choice": "auto",
    "stream": True,
    "temperature": 0.5,
    "timeout": 5,
    "penstock": {"stream_id": "s1"},
    "messages": [
        {"id": "u0", "role": "user", "content": "Hi"},
        {
            "id": "u1",
            "role": "user",
            "parts": [
                {"type": "text", "text": "Look."},
                {"type": "file", "url": PNG, "mediaType": "image/png", "filename": "a.png"},
                {"type": "data-weather", "data": 1},
            ],
        },
        {
            "id": "a1",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {
                    "type": "reasoning",
                    "text": "Hm.",
                    "providerMetadata": {"penstock": {"kind": "thinking", "signature": "s", "provider": "anthropic"}},
                },
                {"type": "text", "text": "No.", "providerMetadata": {"penstock": {"kind": "refusal"}}},
                {"type": "text", "text": "One moment."},
                {
                    "type": "data-penstock-blocks",
                    "data": [{"provider": "p", "data": {"type": "x"}, "at": 3, "calls": 0}],
                },
                {
                    "type": "tool-add",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": {"a": 1},
                    "output": "1",
                    "callProviderMetadata": {"penstock": {"signature": "c2ln"}},
                },
                {
                    "type": "dynamic-tool",
                    "toolName": "run",
                    "toolCallId": "c2",
                    "state": "output-error",
                    "rawInput": "ls",
                    "errorText": "no",
                    "callProviderMetadata": {"penstock": {"type": "custom"}},
                },
                {
                    "type": "tool-add",
                    "toolCallId": "c3",
                    "state": "approval-responded",
                    "input": {"a": 2},
                    "approval": {"id": "p1", "approved": False, "reason": "no"},
                },
            ],
        },
    ],
}

AGUI: Final[dict[str, Any]] = {
    "threadId": "t-1",
    "runId": "r-1",
    "parentRunId": "r-0",
    "protocolVersion": "1.0",
    "state": {"n": 1},
    "context": [{"description": "Page", "value": "/home"}],
    "tools": [{"name": "add", "description": "Adds.", "parameters": SCHEMA}],
    "forwardedProps": {
        "model": "m",
        "provider": "groq",
        "temperature": 0.5,
        "tool_choice": "auto",
        "tools": [{"type": "function", "function": {"name": "more"}}],
        "stream": True,
        "penstock": {"stream_id": "s1"},
    },
    "resume": [{"interruptId": "p1", "status": "resolved", "payload": {"approved": True, "reason": "fine"}}],
    "messages": [
        {"id": "s", "role": "system", "content": "Be brief."},
        {
            "id": "u",
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "Look."},
                {
                    "type": "image",
                    "source": {"type": "data", "value": "QQ==", "mimeType": "image/png"},
                    "metadata": {"filename": "a.png"},
                },
                {"type": "binary", "mimeType": "image/png", "data": "QQ==", "filename": "b.png"},
            ],
        },
        {
            "id": "r",
            "role": "reasoning",
            "content": "Hm.",
            "encryptedValue": "c2ln",
            "metadata": {"penstock": {"kind": "thinking", "provider": "anthropic"}},
        },
        {
            "id": "a",
            "role": "assistant",
            "name": "bot",
            "content": "One moment.",
            "metadata": {"penstock": {"providerBlocks": [{"provider": "p", "data": {"type": "x"}}]}},
            "toolCalls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a":1}'},
                    "encryptedValue": "c2ln",
                },
                {
                    "id": "c2",
                    "type": "function",
                    "function": {"name": "run", "arguments": "ls"},
                    "metadata": {"penstock": {"type": "custom"}},
                },
                {
                    "id": "c3",
                    "type": "function",
                    "function": {"name": "search", "arguments": "{}"},
                    "metadata": {"server": True},
                },
            ],
        },
        {"id": "x1", "role": "tool", "toolCallId": "c1", "content": "1", "metadata": {"status": "ok"}},
        {"id": "x2", "role": "tool", "toolCallId": "c2", "content": "no", "error": "no"},
        {"id": "x3", "role": "tool", "toolCallId": "c3", "content": "f"},
        {"id": "n", "role": "assistant", "content": "No.", "metadata": {"kind": "refusal"}},
        {"id": "p", "role": "activity", "activityType": "tool", "content": {"a": 1}},
        {"id": "u2", "role": "user", "content": "Go on."},
    ],
}

NATIVE: Final[dict[str, Any]] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "parameters": {
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "required",
        "max_tokens": 5,
        "stream": True,
        "timeout": 5,
        "extra_body": {"b": 2},
    },
    **{name: value for name, value in OWN.items() if name != "approval"},
}

BODIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "chat": ("chat", CHAT),
    "chat_files": ("chat", FILES),
    "chat_chosen": ("chat", CHOSEN),
    "responses": ("responses", RESPONSES),
    "responses_items": ("responses", ITEMS),
    "responses_allowed": ("responses", ALLOWED),
    "anthropic": ("anthropic", ANTHROPIC),
    "ui": ("ui", UI),
    "agui": ("agui", AGUI),
    "native": ("native", NATIVE),
}
"""By the name of the test: the protocol, and a body of it."""
