import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import sklearn
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from tabmae.errors import ParameterError, SavedModelError
from tabmae.folders import RECORD, WEIGHTS
from tabmae.saving import FORMAT_VERSION, REGISTERED, checksum, load, register, save

STATE = {
    "mean": 0.1 + 0.2,
    "bounds": (float("-inf"), float("inf")),
    "scales": [1.5, float("nan")],
    "levels": [("a", 3), (True, None)],
    "by_code": {0: "low", 1: "high"},
    "tagged": {"$tuple": [1]},
    "large": 2**70,
    "names": {"Größe \ud800": "x"},
}


class Dummy(BaseEstimator):
    def __init__(
        self,
        *,
        mask: Any = "bernoulli",
        mask_ratio: Any = 0.5,
        callbacks: Any = None,
        checkpoint: Any = None,
        random_state: Any = None,
    ) -> None:
        self.mask = mask
        self.mask_ratio = mask_ratio
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.random_state = random_state

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return self.state_, self.tensors_

    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.state_ = state
        self.tensors_ = {"weight": tensors["weight"], **tensors}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Dummy)
    yield
    del REGISTERED["Dummy"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "model"
    save(fitted(), target)
    return target


def fitted(fill: float = 0.0, **params: Any) -> Dummy:
    estimator = Dummy(**params)
    weight = torch.linspace(-1, 1, 6).reshape(2, 3) + fill
    estimator.state_ = STATE
    estimator.tensors_ = {
        "weight": weight,
        "shared": weight,
        "transposed": weight.t(),
        "double": weight.double(),
        "half": weight.bfloat16(),
        "steps": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "odd": torch.tensor([float("nan"), float("inf")]),
    }
    return estimator


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the record as a hostile author would: with checksums that fit."""
    record = json.loads((folder / RECORD).read_text()) | changes
    record["record_sha256"] = checksum(record)
    (folder / RECORD).write_text(json.dumps(record))


def replace_weights(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    rewrite(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def test_loaded_equals_saved(folder: Path) -> None:
    loaded = load(folder)
    assert type(loaded) is Dummy
    assert repr(loaded.state_) == repr(STATE)
    assert loaded.tensors_.keys() == fitted().tensors_.keys()
    for name, tensor in fitted().tensors_.items():
        assert loaded.tensors_[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded.tensors_[name], tensor, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((0.1, 0.9), (0.1, 0.9)),
        ([(8, 8), "a"], [(8, 8), "a"]),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("auto"), "auto"),
        (np.array(["city", "age"]), ["city", "age"]),
        (np.array([[True, False]]), [[True, False]]),
        ((np.float64("nan"),), (float("nan"),)),
        (None, None),
    ],
)
def test_parameters_come_back_as_python_values(tmp_path: Path, value: Any, expected: Any) -> None:
    save(fitted(mask_ratio=value), tmp_path)
    loaded = load(tmp_path).mask_ratio
    assert type(loaded) is type(expected)
    assert repr(loaded) == repr(expected)


def test_the_folder_holds_weights_and_json_only(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == [RECORD, WEIGHTS]
    record = json.loads((folder / RECORD).read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert record["format_version"] == FORMAT_VERSION
    assert record["versions"]["scikit-learn"] == sklearn.__version__
    assert record["weights_sha256"] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert safetensors.torch.load_file(folder / WEIGHTS).keys() == fitted().tensors_.keys()


def test_parameters_that_are_no_values_are_refused_together_before_writing(tmp_path: Path) -> None:
    estimator = fitted(mask=lambda observed: observed, random_state=np.random.RandomState(0))
    message = r"Parameters must be numbers.*got `mask` of type function, `random_state` of type RandomState"
    with pytest.raises(ParameterError, match=message):
        save(estimator, tmp_path / "new" / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [np.datetime64("2024-01-01", "ns"), np.timedelta64(5, "ns"), {1, 2}, torch.ones(2)])
def test_values_without_an_exact_form_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ParameterError, match=r"Parameters must be numbers.*got `mask_ratio`"):
        save(fitted(mask_ratio=value), tmp_path / "model")


def test_callbacks_and_checkpoint_are_dropped_and_named(tmp_path: Path) -> None:
    def stop_early() -> None: ...

    estimator = fitted(callbacks=[stop_early, Dummy()], checkpoint="run.pt")
    message = r"Not saved with the model: `callbacks` 'stop_early', Dummy\(\); `checkpoint` 'run.pt'"
    with pytest.warns(UserWarning, match=message):
        save(estimator, tmp_path)
    loaded = load(tmp_path)
    assert loaded.callbacks is loaded.checkpoint is None
    assert estimator.callbacks is not None


def test_an_unregistered_class_is_refused(tmp_path: Path) -> None:
    del REGISTERED["Dummy"]
    with pytest.raises(ParameterError, match="`estimator` must be of a registered class; got Dummy"):
        save(fitted(), tmp_path / "model")
    register(Dummy)


def test_a_class_that_borrows_a_registered_name_is_refused(tmp_path: Path) -> None:
    borrowed = type("Dummy", (Dummy,), {})()
    borrowed._set_state(*fitted()._get_state())
    with pytest.raises(ParameterError, match="`estimator` must be of a registered class; got Dummy"):
        save(borrowed, tmp_path / "model")


def test_a_saved_model_is_replaced(folder: Path) -> None:
    save(fitted(fill=5.0), str(folder))
    assert load(folder).tensors_["weight"].min() == 4.0
    assert os.listdir(folder.parent) == ["model"]


def test_a_link_to_a_saved_model_stays_a_link(folder: Path) -> None:
    link = folder.with_name("latest")
    link.symlink_to(folder)
    save(fitted(fill=5.0), link)
    assert link.is_symlink()
    assert load(folder).tensors_["weight"].min() == 4.0


@pytest.mark.parametrize("names", [["notes.txt"], [RECORD, WEIGHTS, "notes.txt"], [WEIGHTS]])
def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(SavedModelError, match="`folder` must be new, empty or a saved model"):
        save(fitted(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert all((tmp_path / name).read_text() == "precious" for name in names)


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("precious")
    with pytest.raises(SavedModelError, match="`folder` must be new, empty or a saved model"):
        save(fitted(), tmp_path / "model")
    assert (tmp_path / "model").read_text() == "precious"


def test_a_folder_whose_parent_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SavedModelError, match="`folder` must lie in a folder that can be written to; '.*file' is not"):
        save(fitted(), tmp_path / "file" / "new" / "model")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or Path(path) != tmp_path)
    with pytest.raises(SavedModelError, match="`folder` must lie in a folder that can be written to"):
        save(fitted(), tmp_path / "new" / "model")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write", "->.old", ".new->"])
def test_a_failure_in_the_middle_leaves_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    before = {name: (folder / name).read_bytes() for name in (RECORD, WEIGHTS)}
    rename, synced = Path.rename, list[int]()

    def fail_second_write(descriptor: int) -> None:
        synced.append(descriptor)
        if step == "write" and len(synced) == 2:
            raise error

    def fail_rename(path: Path, target: Path) -> Path:
        if step in (path.suffix + "->", "->" + target.suffix):
            raise error
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fail_second_write)
    monkeypatch.setattr(Path, "rename", fail_rename)
    with pytest.raises(type(error)):
        save(fitted(fill=5.0), folder)
    assert os.listdir(folder.parent) == ["model"]
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


def test_a_failure_in_the_middle_leaves_no_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.close(-1))
    with pytest.raises(OSError, match="Bad file descriptor"):
        save(fitted(), tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_parameter_that_came_later_has_its_default(folder: Path) -> None:
    rewrite(folder, params={"mask_ratio": 0.25})
    assert load(folder).get_params() == Dummy(mask_ratio=0.25).get_params()


class Trap:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def clear(folder: Path) -> None:
    for name in os.listdir(folder):
        (folder / name).unlink()


def remove(folder: Path) -> None:
    clear(folder)
    folder.rmdir()


def become_file(folder: Path) -> None:
    remove(folder)
    folder.write_text("{}")


def truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])


def truncate_with_fitting_checksum(folder: Path) -> None:
    replace_weights(folder, (folder / WEIGHTS).read_bytes()[:-8])


def flip_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def edit(old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / RECORD).read_text()
        assert old in text
        (folder / RECORD).write_text(text.replace(old, new, 1))

    return apply


def link_out(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "outside")
    (folder / WEIGHTS).symlink_to(folder.parent / "outside")


def become_pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def become_folder(folder: Path) -> None:
    (folder / RECORD).unlink()
    (folder / RECORD).mkdir()


def nest(depth: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        begin = f'{{"format_version": {FORMAT_VERSION}, "state": '
        (folder / RECORD).write_text(begin + "[" * depth + "]" * depth + "}")

    return apply


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (remove, "`folder` must be written by save; '.*model' does not exist"),
    "a file": (become_file, "`folder` must be written by save; '.*model' is not a folder"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "A saved model must hold .* lacks 'weights.safetensors'"),
    "empty": (clear, "A saved model must hold .* lacks 'tabm"),
    "truncated weights": (truncate, "'weights.safetensors' must match its checksum"),
    "truncated, checksum fits": (truncate_with_fitting_checksum, "'weights.safetensors' must be in safetensors format"),
    "one bit of the weights": (flip_bit, "'weights.safetensors' must match its checksum"),
    "one digit of the record": (
        edit("0.30000000000000004", "0.40000000000000004"),
        "'tabmae.json' must match its checks",
    ),
    "no JSON": (lambda f: (f / RECORD).write_text("{"), "'tabmae.json' must be valid JSON"),
    "no text": (lambda f: (f / RECORD).write_bytes(b"\xff\xfe\x00"), "'tabmae.json' must be valid JSON"),
    "NaN": (edit("0.30000000000000004", "NaN"), "'tabmae.json' must be valid JSON.*NaN is not JSON"),
    "huge number": (edit("0.30000000000000004", "1" * 5000), "'tabmae.json' must be valid JSON"),
    "a list": (lambda f: (f / RECORD).write_text("[]"), "'tabmae.json' must be an object with a format version"),
    "version true": (
        lambda f: rewrite(f, format_version=True),
        "'tabmae.json' must be an object with a format version",
    ),
    "newer": (
        lambda f: rewrite(f, format_version=FORMAT_VERSION + 1),
        f"must have format version {FORMAT_VERSION}; '.*' has {FORMAT_VERSION + 1}. Upgrade tabmae",
    ),
    "older": (
        lambda f: rewrite(f, format_version=FORMAT_VERSION - 1),
        f"must have format version {FORMAT_VERSION}; '.*' has {FORMAT_VERSION - 1}. Fit the model again and save it",
    ),
    "no class": (edit('"class"', '"klass"'), "'tabmae.json' must hold class, .* it lacks 'class'"),
    "nested": (nest(100), "'tabmae.json' must hold class"),
    "nested deeply": (nest(100_000), "'tabmae.json' must hold values written by save.*nested too deeply"),
    "unknown class": (lambda f: rewrite(f, **{"class": "Evil"}), "The class of a saved model must be one of .*'Evil'"),
    "class is a path": (lambda f: rewrite(f, **{"class": "../../Dummy"}), "The class of a saved model must be one of"),
    "class is a list": (lambda f: rewrite(f, **{"class": ["Dummy"]}), "The class of a saved model must be one of"),
    "params a list": (lambda f: rewrite(f, params=[1]), "Parameters and state in 'tabmae.json' must be objects"),
    "state a number": (lambda f: rewrite(f, state=1), "Parameters and state in 'tabmae.json' must be objects"),
    "unknown parameter": (lambda f: rewrite(f, params={"evil": 1}), "Parameters must be those of a Dummy.*'evil'"),
    "chosen path": (lambda f: rewrite(f, params={"checkpoint": "/etc/x"}), "Parameters must be those .*'checkpoint'"),
    "unknown tag": (lambda f: rewrite(f, state={"$evil": 1}), "'tabmae.json' must hold values written by save"),
    "bad tuple": (lambda f: rewrite(f, state={"a": {"$tuple": 1}}), "'tabmae.json' must hold values written by save"),
    "bad float": (lambda f: rewrite(f, state={"a": {"$float": "x"}}), "'tabmae.json' must hold values written by save"),
    "two tags": (lambda f: rewrite(f, state={"$a": 1, "$b": 1}), "'tabmae.json' must hold values written by save"),
    "other weights": (
        lambda f: replace_weights(f, safetensors.torch.save({"other": torch.ones(1)})),
        "State and weights must be those of a Dummy; .*KeyError: 'weight'",
    ),
    "huge header": (
        lambda f: replace_weights(f, (2**62).to_bytes(8, "little") + b"{}"),
        "'weights.safetensors' must be in safetensors format",
    ),
    "offsets outside": (
        lambda f: replace_weights(
            f,
            (64).to_bytes(8, "little") + b'{"weight":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64),
        ),
        "'weights.safetensors' must be in safetensors format",
    ),
    "a pickle": (
        lambda f: replace_weights(f, pickle.dumps(Trap(f / "executed"))),
        "'weights.safetensors' must be in safetensors format",
    ),
    "weights linked": (link_out, "'weights.safetensors' must be a regular file"),
    "weights a pipe": (become_pipe, "'weights.safetensors' must be a regular file"),
    "record a folder": (become_folder, "'tabmae.json' must be a regular file"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_bad_folder_gives_one_clear_error(folder: Path, name: str) -> None:
    spoil, message = BAD_FOLDERS[name]
    spoil(folder)
    with pytest.raises(SavedModelError, match=message) as caught:
        load(folder)
    rule, given = str(caught.value).split("; ", 1)
    assert " must " in rule
    assert given.rstrip().endswith(".")
    assert not (folder / "executed").exists()


def test_the_trap_would_spring(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_the_root_of_the_file_system_is_not_replaced() -> None:
    with pytest.raises(SavedModelError, match="^`folder` must be"):
        save(fitted(), Path(os.sep))


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(fitted(fill=5.0), "~/model")
    assert (tmp_path / "model" / RECORD).exists()
    assert load("~/model").tensors_["weight"].min() == 4.0
