"""The loopback provider: a real HTTP server, in this process, that speaks the wire formats of five APIs.

It says what a `Script` tells it to and breaks where the script wants it broken: for tests, demonstrations and
measurements. Nothing of it is a mock; bytes go through sockets, resets are resets.

Endpoints, all streamed or whole: ``POST /v1/chat/completions`` and ``POST /v1/responses`` (OpenAI), ``POST
/v1/messages`` (Anthropic), ``POST /api/chat`` (Ollama), ``POST /v1beta/models/M:streamGenerateContent`` and
``:generateContent`` (Gemini). ``GET /v1/responses/ID`` goes on with an answer that was asked for with ``background``.
Lists of models: ``GET /v1/models`` (OpenAI's form, or Anthropic's where an ``anthropic-version`` is sent),
``/api/tags``, ``/v1beta/models``. ``GET /healthz``, ``GET /api/version``. Everything else gets an error in the form of
the API whose path it looks like.

The modules, each knowing only those above it: `faults` · `request` (what came in) · `ledger` (what came in and went
out, counted) · `answer` · `replay` (recorded bytes) · `script` (who gets which) · `encoder`,
`chat_encoder`, `responses_encoder`, `anthropic_encoder`, `ollama_encoder`, `gemini_encoder` (an answer as events) · `dialects` (which paths are
whose) · `listings` · `resumption` · `framing` (events as writes) · `timeline` (an answer laid out in time) · `endpoints` ·
`connection` · `models` (the script below) · `server`.

The models of `models.default_script`, which is what ``penstock loopback`` serves, at 40 tokens a second:

====================== =========================================================================================
model                  what it does
====================== =========================================================================================
``loopback``           one of a few sentences in turn; so does every name that is not in this table
``echo``               says the last user message
``lorem``              400 tokens
``flood``              10,000 tokens, as fast as they are read
``reasoning``          reasoning, then a sentence
``refusal``            refuses
``tools``              calls the request's first tool (or ``get_weather``) as its schema says; tells its result
``fault-503-once``     503, and an answer the next time, in turn
``fault-503``          503 always
``fault-rate-limit``   429 with ``Retry-After: 1``, and an answer the next time, in turn
``fault-401``          401: the key is wrong
``fault-404``          404: no such model
``fault-context-length`` 400: the input is too long
``fault-hang-up``      the connection is closed before any answer
``fault-not-a-stream`` 200 and a web page
``fault-slow-start``   the status line comes after 3 s
``fault-no-start``     nothing ever comes
``fault-stall``        5 tokens, then silence without end
``fault-pause``        5 tokens, 3 s of silence, the rest
``fault-reset``        5 tokens, then a TCP reset
``fault-reset-once``   the same, and an answer the next time, in turn
``fault-truncate``     5 tokens, then the body ends as if all were well, without finish reason and end marker
``fault-cut``          5 tokens, then the connection is closed in the middle of the body
``fault-malformed``    an event of broken JSON behind 5 tokens, then the rest
``fault-error-frame``  5 tokens, then an error inside the stream
``fault-invalid-utf8`` an event that is not UTF-8 behind 5 tokens, then the rest
``fault-huge-event``   an event of 8 MiB behind 5 tokens, then the rest
``fault-no-done``      everything but the end marker (``[DONE]``, ``message_stop``)
``fault-hold-open``    everything, but the body is not ended
====================== =========================================================================================
"""
