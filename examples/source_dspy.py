"""A DSPy program as a stream. Needs the extra dspy; without it, this says so. The loopback provider is the model.

Usage: python examples/source_dspy.py
"""

import importlib.util
import warnings

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider

ANSWER = "[[ ## answer ## ]]\nParis, as everybody knows.\n\n[[ ## completed ## ]]"


def main() -> None:
    if importlib.util.find_spec("dspy") is None:
        print("DSPy is not installed: pip install 'penstock[dspy]'")
        return
    warnings.simplefilter("ignore")  # of its dependencies
    import dspy

    with LoopbackProvider(Script([Answer(ANSWER)])) as server, penstock.System() as system:
        model = dspy.LM("openai/m", api_base=server.base_url, api_key="k", cache=False)
        with dspy.context(lm=model, adapter=dspy.ChatAdapter()):
            stream = system.stream_from(penstock.sources.dspy(dspy.Predict("question -> answer"), question="Capital?"))
        for text in stream.texts():
            print(text, end="", flush=True)
        print("\n", stream.result(10).prediction)


if __name__ == "__main__":
    main()
