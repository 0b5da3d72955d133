"""Save fitted estimators as a folder of safetensors weights and one JSON file, and load them.

No pickle: loading runs no code from the folder, and a damaged or hostile one gives one `SavedModelError`.
"""

import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import safetensors.torch
from torch import Tensor

from tabmae.errors import ParameterError, SavedModelError, listed, warn
from tabmae.folders import RECORD, WEIGHTS, check_target

FORMAT_VERSION = 3
PACKAGES = ("tabmae", "torch", "scikit-learn")
UNSAVED = ("callbacks", "checkpoint")
"""Parameters of one run on one machine: code, and a path that a loaded folder must not choose."""
CHECKED = ("class", "params", "state", "weights_sha256")


class Savable(Protocol):
    """What an estimator gives to be saved: state is JSON-able, also with tuples, NaN and numpy scalars."""

    def get_params(self, deep: bool = True) -> dict[str, Any]: ...

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]: ...

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None: ...


SavableClass = TypeVar("SavableClass", bound=Callable[..., Savable])
REGISTERED: dict[str, Callable[..., Savable]] = {}


def register(cls: SavableClass) -> SavableClass:
    """Let a class be saved and loaded, by its name."""
    REGISTERED[cls.__name__] = cls
    return cls


def save(estimator: Savable, folder: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a folder, whole or not at all.

    The folder may be absent, empty, or one written by `save` before, which is replaced. `callbacks` and `checkpoint`
    are left out, with a warning that names them.

    Raises
    ------
    ParameterError : a parameter is no plain value (a function, a generator); the class is not registered.
    SavedModelError : the folder holds something else, or cannot be made.
    """
    name = type(estimator).__name__
    if REGISTERED.get(name) is not type(estimator):
        raise ParameterError(
            f"`estimator` must be of a registered class; got {name}. Register the class with tabmae.saving.register."
        )
    target = Path(os.path.realpath(os.path.expanduser(folder)))
    check_target(target)
    params = encode_params(estimator.get_params(deep=False))
    state, tensors = estimator._get_state()
    # Copies, since safetensors refuses tensors that share memory.
    weights = safetensors.torch.save(
        {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
    )
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "class": name,
        "versions": installed_versions(),
        "params": params,
        "state": encode(state),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    record["record_sha256"] = checksum(record)
    write_folder(target, {RECORD: json.dumps(record, indent=1, allow_nan=False).encode(), WEIGHTS: weights})


def load(folder: str | os.PathLike[str]) -> Any:
    """Read an estimator written by `save`.

    Raises
    ------
    SavedModelError : the folder is absent, damaged, of another format, or not what it says.
    """
    path = Path(os.path.expanduser(folder))
    if not path.is_dir():
        given = "is not a folder" if path.exists() else "does not exist"
        raise SavedModelError(
            f"`folder` must be written by save; {str(path)!r} {given}. Pass the folder given to save."
        )
    missing = [name for name in (RECORD, WEIGHTS) if not os.path.lexists(path / name)]
    if missing:
        raise SavedModelError(
            f"A saved model must hold {RECORD!r} and {WEIGHTS!r}; {str(path)!r} lacks {listed(missing)}. "
            "Pass the folder given to save, or save the estimator again."
        )
    try:
        cls, params, state, weights_sha256 = read_record(path)
    except RecursionError as error:
        raise damaged(path, f"{RECORD!r} must hold values written by save", "they are nested too deeply") from error
    weights = read_bytes(path, WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != weights_sha256:
        raise damaged(path, f"{WEIGHTS!r} must match its checksum", "it does not")
    try:
        # Copies lie where torch puts its own tensors: kernels may round otherwise from another alignment.
        tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(weights).items()}
    except Exception as error:
        raise damaged(path, f"{WEIGHTS!r} must be in safetensors format", str(error)) from error
    try:
        estimator = cls(**params)
        estimator._set_state(state, tensors)
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise damaged(path, f"State and weights must be those of a {cls.__name__}", told) from error
    return estimator


def read_record(path: Path) -> tuple[Callable[..., Savable], dict[str, Any], dict[str, Any], str]:
    """Give class, parameters, state and the weights' checksum from the JSON file, all checked."""
    raw = read_bytes(path, RECORD)
    try:
        record = json.loads(raw, parse_constant=refuse_constant)
    except ValueError as error:
        raise damaged(path, f"{RECORD!r} must be valid JSON", str(error)) from error
    written = record.get("format_version") if isinstance(record, dict) else None
    if type(written) is not int or written < 1:
        raise damaged(path, f"{RECORD!r} must be an object with a format version", "it has none")
    if written != FORMAT_VERSION:
        newer = written > FORMAT_VERSION
        remedy = "Upgrade tabmae: pip install --upgrade tabmae." if newer else "Fit the model again and save it."
        raise SavedModelError(
            f"A saved model must have format version {FORMAT_VERSION}; {str(path)!r} has {written}. {remedy}"
        )
    missing = [key for key in (*CHECKED, "record_sha256") if key not in record]
    if missing:
        raise damaged(
            path, f"{RECORD!r} must hold class, parameters, state and checksums", f"it lacks {listed(missing)}"
        )
    if checksum(record) != record["record_sha256"]:
        raise damaged(path, f"{RECORD!r} must match its checksum", "it does not")
    name = record["class"]
    if not isinstance(name, str) or name not in REGISTERED:
        raise SavedModelError(
            f"The class of a saved model must be one of {listed(sorted(REGISTERED))}; {str(path)!r} has {name!r}. "
            "Load it with the tabmae that wrote it, or upgrade tabmae."
        )
    try:
        params, state = decode(record["params"]), decode(record["state"])
    except (TypeError, ValueError) as error:
        raise damaged(path, f"{RECORD!r} must hold values written by save", str(error)) from error
    if not isinstance(params, dict) or not isinstance(state, dict):
        raise damaged(path, f"Parameters and state in {RECORD!r} must be objects", "they are not")
    unknown = sorted(set(params) - (set(REGISTERED[name]().get_params(deep=False)) - set(UNSAVED)))
    if unknown:
        raise damaged(path, f"Parameters must be those of a {name}", f"got {listed(unknown)}")
    return REGISTERED[name], params, state, record["weights_sha256"]


def damaged(path: Path, rule: str, given: str) -> SavedModelError:
    """Word the error of a folder that cannot be used."""
    return SavedModelError(f"{rule}; in {str(path)!r}: {given}. Copy the folder again, or save the estimator again.")


def read_bytes(path: Path, name: str) -> bytes:
    """Read a file of the folder; links out of it, pipes and devices are refused."""
    try:
        if not stat.S_ISREG(os.lstat(path / name).st_mode):
            raise damaged(path, f"{name!r} must be a regular file", "it is a link, a folder or a device")
        return (path / name).read_bytes()
    except OSError as error:
        raise damaged(path, f"{name!r} must be readable", str(error)) from error


def write_folder(target: Path, files: dict[str, bytes]) -> None:
    """Write files into a new sibling folder, and rename it to the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unique = uuid.uuid4().hex
    staging, previous = (target.with_name(f".{target.name}.{unique}.{role}") for role in ("new", "old"))
    try:
        staging.mkdir()
        for name, content in files.items():
            with (staging / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        try:
            if target.exists():
                target.rename(previous)
            staging.rename(target)
        except BaseException:
            if previous.exists():
                previous.rename(target)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def encode_params(params: dict[str, Any]) -> dict[str, Any]:
    """Turn parameters into JSON values, refusing at once all that have none."""
    encoded: dict[str, Any] = {}
    refused: list[str] = []
    dropped: list[str] = []
    for name, value in params.items():
        try:
            if name not in UNSAVED:
                encoded[name] = encode(value)
            elif value is not None:
                items = value if isinstance(value, list | tuple) else [value]
                dropped.append(f"`{name}` {listed(getattr(item, '__name__', item) for item in items)}")
        except TypeError:
            refused.append(name)
    if refused:
        given = ", ".join(f"`{name}` of type {type(params[name]).__name__}" for name in refused[:5])
        raise ParameterError(
            f"Parameters must be numbers, strings or tuples of them to be saved; got {given}. "
            f"Call set_params({refused[0]}=...) with such a value before save."
        )
    if dropped:
        warn(f"Not saved with the model: {'; '.join(dropped)}. Pass them again with set_params after load.")
    return encoded


def encode(value: Any) -> Any:
    """Turn a value into one that JSON holds exactly; tuples, NaN and infinities carry a tag.

    >>> encode((0.1, float("inf")))
    {'$tuple': [0.1, {'$float': 'inf'}]}
    """
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, tuple):
        return {"$tuple": [encode(item) for item in value]}
    if isinstance(value, list | np.ndarray):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"$dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def decode(value: Any) -> Any:
    """Undo `encode`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item) for key, item in value.items()}
    (content,) = value.values()
    if tag == "$tuple":
        return tuple(decode(item) for item in content)
    if tag == "$dict":
        return {decode(key): decode(item) for key, item in content}
    if tag == "$float":
        return float(content)
    raise ValueError(f"unknown tag {tag!r}")


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors under a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def checksum(record: dict[str, Any]) -> str:
    """Give the SHA-256 of what a loaded estimator is made of."""
    content = json.dumps({key: record[key] for key in CHECKED}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def refuse_constant(constant: str) -> None:
    """Refuse the words NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is not JSON")


def installed_versions() -> dict[str, str]:
    """Give the versions of the packages that the weights were made with."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # run from a source folder
            versions[name] = version(name)
    return versions
