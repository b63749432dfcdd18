"""The loopback provider: a real HTTP server in this process that speaks the wire formats of five APIs.

It answers as a `Script` says and fails where the script says so: for tests, demonstrations and measurements. Nothing is
mocked: bytes go through sockets, and a reset is a TCP reset.

Endpoints, each streamed or whole: ``POST /v1/chat/completions`` and ``POST /v1/responses`` (OpenAI), ``POST
/v1/messages`` (Anthropic), ``POST /api/chat`` (Ollama), ``POST /v1beta/models/M:streamGenerateContent`` and
``:generateContent`` (Gemini). ``GET /v1/responses/ID`` resumes an answer that was requested with ``background``.
Lists of models: ``GET /v1/models`` (in OpenAI's form, or in Anthropic's if the request has an ``anthropic-version``
header), ``/api/tags``, ``/v1beta/models``. ``GET /healthz``, ``GET /api/version``. Any other path gets an error in the
form of the API whose paths it resembles.

The modules, each importing only those before it: `faults` · `request` (one received request) · `ledger` (recent
requests and counters) · `pieces`, `hosted`, `media`, `parts` (what an answer may consist of) · `answer` · `replay`
(recorded bytes) · `script` (which request gets which reply) · `encoder`, `chat_encoder`, `responses_encoder`,
`anthropic_encoder`, `ollama_encoder`, `gemini_encoder` (a plain answer as events) · `chat_parts`, `responses_items`,
`responses_parts`, `anthropic_parts`, `ollama_parts`, `gemini_parts` (an answer with parts) · `dialects` (paths and
rules of each API) · `listings` (lists of models) · `resumption` · `framing` (events as socket writes) · `timeline`
(what is sent, when) · `endpoints` · `connection` · `models` (the script below) · `server`.

The models of `models.default_script`, which ``penstock loopback`` serves, at 40 tokens a second:

====================== =========================================================================================
model                  what it does
====================== =========================================================================================
``loopback``           one of a few sentences, in rotation; any name that is not in this table does the same
``echo``               repeats the last user message
``lorem``              400 tokens
``flood``              10,000 tokens, as fast as they are read
``reasoning``          reasoning, then a sentence
``extras``             signed reasoning, a search, text with a source, code that was run, a picture
``refusal``            refuses
``tools``              calls the request's first tool (or ``get_weather``) as its schema says; repeats its result
``fault-503-once``     alternates: 503, then an answer
``fault-503``          always 503
``fault-rate-limit``   alternates: 429 with ``Retry-After: 1``, then an answer
``fault-401``          401: the key is wrong
``fault-404``          404: no such model
``fault-context-length`` 400: the input is too long
``fault-hang-up``      closes the connection before any answer
``fault-not-a-stream`` 200 and a web page
``fault-slow-start``   sends the status line after 3 s
``fault-no-start``     never sends anything
``fault-stall``        5 tokens, then nothing more; the connection stays open
``fault-pause``        5 tokens, 3 s of silence, the rest
``fault-reset``        5 tokens, then a TCP reset
``fault-reset-once``   alternates: the same, then an answer
``fault-truncate``     5 tokens, then a properly ended body, without finish reason and end marker
``fault-cut``          5 tokens, then the connection is closed in the middle of the body
``fault-malformed``    5 tokens, an event of broken JSON, the rest
``fault-error-frame``  5 tokens, then an error inside the stream
``fault-invalid-utf8`` 5 tokens, an event that is not UTF-8, the rest
``fault-huge-event``   5 tokens, an event of 8 MiB, the rest
``fault-no-done``      everything but the end marker (``[DONE]``, ``message_stop``)
``fault-hold-open``    everything, but the body does not end
====================== =========================================================================================
"""
