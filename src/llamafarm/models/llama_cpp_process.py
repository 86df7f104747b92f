"""The process that the engine runs in: settings from stdin, its address on stdout, then it serves
until stdin is closed. `llama_cpp.py` starts it.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Serve one GGUF file. Whatever llama.cpp prints goes to stderr; stdout is the answer's."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = json.loads(sys.stdin.readline())
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["file"]
    parameters.n_ctx = settings["context_tokens"]
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = settings["threads"]
    parameters.cpuparams_batch.n_threads = settings["threads"]
    # Threads that wait sleep: where another process takes a core, spinning ones stop the engine.
    parameters.cpuparams.poll = 0
    parameters.cpuparams_batch.poll = 0
    parameters.api_keys = [settings["key"]]
    parameters.warmup = False
    parameters.fit_params = False
    parameters.ui = False
    parameters.ctx_shift = False
    parameters.offline = True
    parameters.use_jinja = True
    # A conversation that ends with an answer is a finished one, not an answer to go on with.
    parameters.prefill_assistant = False
    # Each new prompt would be kept aside, up to 8 GiB of them.
    parameters.cache_ram_mib = 0
    parameters.verbosity = 1
    if settings["exact"]:
        parameters.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.flash_attn_type = off
    server = xllamacpp.Server(parameters)
    answer.write(f"{server.listening_address}\n")
    answer.close()
    sys.stdin.read()
    # Its threads need no orderly end, and one that hangs must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
