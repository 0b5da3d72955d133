"""One run of one method in its own process, so that its memory, processor time and crashes are its own.

Contract: reads `job.json` and `job.npz` of a folder, writes `result.json` and the imputed codes of the splits there.
Runs in any environment with NumPy and pandas; a method's module is imported by name, before the clock starts.
"""

import importlib
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

METHODS = {
    "mean": "benchmarks.peers:MeanMode",
    "knn": "benchmarks.peers:Neighbours",
    "iterative": "benchmarks.peers:Iterative",
    "missforest": "benchmarks.missforest:MissForest",
    "extratrees": "benchmarks.missforest:MissExtraTrees",
    "miceforest": "benchmarks.peers_mice:MiceForest",
    "hyperimpute": "benchmarks.peers_hyperimpute:HyperImputer",
    "gaussian": "benchmarks.ours:GaussianAlone",
    "tabmae": "benchmarks.ours:TabMAEMethod",
    "tabmae-pure": "benchmarks.ours:PureMAE",
    "tabmae-no-trees": "benchmarks.ours:NoTrees",
    "tabmae-no-copies": "benchmarks.ours:NoCopies",
    "tabmae-no-network": "benchmarks.ours:NoNetwork",
    "tabmae-transformer": "benchmarks.ours:TransformerMAE",
    "tabmae-conv": "benchmarks.ours:ConvMAE",
}
IN_SAMPLE_ONLY = ("hyperimpute",)
VERSIONS = (
    *("tabmae", "torch", "scikit-learn", "numpy", "pandas", "lightgbm", "miceforest", "hyperimpute", "xgboost"),
    *("pyod", "deepod", "stumpy"),
)


def frame_of(codes: np.ndarray, names: list[str], levels: list[int]) -> pd.DataFrame:
    """Build a table of float64 and category columns from codes with NaN."""
    columns = {
        name: pd.Categorical.from_codes(
            np.where(np.isnan(codes[:, position]), -1, codes[:, position]).astype(np.int64),
            categories=[f"level {code}" for code in range(n_levels)],
        )
        if n_levels
        else codes[:, position]
        for position, (name, n_levels) in enumerate(zip(names, levels, strict=True))
    }
    return pd.DataFrame(columns)


def codes_of(frame: pd.DataFrame) -> np.ndarray:
    """Turn a completed table back into float64 codes."""
    return np.column_stack(
        [
            np.where(frame[name].isna(), np.nan, frame[name].cat.codes)
            if isinstance(frame[name].dtype, pd.CategoricalDtype)
            else frame[name].to_numpy(dtype=np.float64)
            for name in frame.columns
        ]
    )


def cpu_seconds() -> float:
    """Processor time of this process and of its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mb() -> float:
    """Largest resident memory so far of this process and of its largest child, in MB."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_maxrss for usage in usages) / 1024


def versions() -> dict[str, str]:
    """Versions of the packages that can bear on a result, as far as they are installed."""
    installed = {
        distribution.metadata["Name"].lower(): distribution.version.partition("+")[0]
        for distribution in importlib.metadata.distributions()
    }
    found = {name: installed[name] for name in VERSIONS if name in installed}
    return {"python": sys.version.split()[0], **found}


def main(folder: Path) -> None:
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "job.npz")
    train = frame_of(arrays["train"], job["names"], job["levels"])
    test = frame_of(arrays["test"], job["names"], job["levels"])
    module, name = METHODS[job["method"]].split(":")
    method = getattr(importlib.import_module(module), name)(seed=job["seed"], n_jobs=job["n_jobs"])
    before_mb, before_cpu, start = peak_mb(), cpu_seconds(), time.perf_counter()
    imputed = {"train": method.fit_transform(train)}
    fitted = time.perf_counter()
    fitted_cpu = cpu_seconds()
    if len(test) and job["method"] not in IN_SAMPLE_ONLY:
        imputed["test"] = method.transform(test)
    end, end_cpu = time.perf_counter(), cpu_seconds()
    measured = {
        "fit_seconds": fitted - start,
        "transform_seconds": end - fitted,
        "cpu_seconds": end_cpu - before_cpu,
        "transform_cpu_seconds": end_cpu - fitted_cpu,
        "peak_mb": peak_mb(),
        "import_mb": before_mb,
        "versions": versions(),
    }
    for split, frame in imputed.items():
        np.save(folder / f"{split}.npy", codes_of(frame))
    (folder / "result.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
