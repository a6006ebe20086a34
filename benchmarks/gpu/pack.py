"""Collect what a CUDA machine without a network lacks: python -m benchmarks.gpu.pack [--out .gpu-pack].

The machine has Python 3.12 on x86-64 Linux with torch, transformers, accelerate and peft. The pack holds wheels for it,
in the versions of constraints.txt: this project's dependencies without torch and without W&B, which is large; TRL
1.12.0 unpacked, the last release with PPO; and the script that times it, where ../shared has that.
"""

import argparse
import csv
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 64 * 2**20  # bytes that may travel
WHEELS = (  # what the machine lacks, or may have too old
    *("transformers", "peft", "accelerate", "trl", "datasets", "dill", "multiprocess", "bitsandbytes", "regex"),
    *("pydantic", "pydantic_core", "annotated-types", "typing-inspection", "typing_extensions", "typer", "rich"),
    *("openai", "jiter", "httpx2", "httpcore2", "truststore", "sniffio", "anyio", "krippendorff", "annotated-doc"),
    *("starlette", "uvicorn", "fastapi", "opentelemetry-api"),
)
BUILT = ("deepspeed",)  # a source distribution, whose wheel holds Python alone
FOR_DEEPSPEED = ("hjson", "py-cpuinfo", "einops", "msgpack")
TRL = "trl==1.12.0"
BASELINE = ROOT.parent / "shared" / "bench" / "trl_ppo_baseline.py"
GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5", "2014", "2010", "1")
BITSANDBYTES_KEPT = ("libbitsandbytes_cuda130.so", "libbitsandbytes_cpu.so")


def main() -> None:
    """Fill the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu-pack")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    wheels = args.out / "wheels"
    wheels.mkdir(parents=True)
    versions = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    download([named(name, versions) for name in (*WHEELS, *FOR_DEEPSPEED)], wheels)
    for name in BUILT:
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), named(name, versions))
    (heavy,) = wheels.glob("bitsandbytes-*.whl")
    slim(heavy)
    _pip("install", "--no-deps", "--no-compile", "--target", str(args.out / "trl-1.12.0"), TRL)
    if BASELINE.is_file():
        shutil.copy(BASELINE, args.out)
    size = packed_size(args.out)
    print(f"{args.out}: {len([*wheels.iterdir()])} wheels, {size / 2**20:.1f} MiB to carry")
    if not BASELINE.is_file():
        print(f"{BASELINE} is not there, so PPO will not be compared with TRL's")
    if size > LARGEST:
        sys.exit(f"{args.out} is {size / 2**20:.1f} MiB; at most {LARGEST >> 20} MiB can be carried")


def pinned(constraints: str) -> dict[str, str]:
    """Return the versions of constraints.txt by name."""
    lines = [line.split("==") for line in constraints.splitlines() if "==" in line and not line.startswith("#")]
    return {name.strip().lower().replace("_", "-"): version.strip() for name, version in lines}


def named(name: str, versions: dict[str, str]) -> str:
    """Return pip's requirement: the version in constraints.txt, if it has one."""
    version = versions.get(name.lower().replace("_", "-"))
    return f"{name}=={version}" if version else name


def download(requirements: list[str], folder: Path) -> None:
    """Fetch wheels for the machine, whatever this one is."""
    platforms = [word for glibc in GLIBC for word in ("--platform", _platform(glibc))]
    target = ("--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp")
    _pip("download", "--no-deps", *target, *platforms, "--dest", str(folder), *requirements)


def _platform(glibc: str) -> str:
    return f"manylinux_{glibc}_x86_64" if "_" in glibc else f"manylinux{glibc}_x86_64"


def slim(wheel: Path) -> None:
    """Rewrite the wheel of bitsandbytes with CUDA 13.0's library and the CPU's alone."""
    with zipfile.ZipFile(wheel) as old, tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / wheel.name
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as out:
            for item in old.infolist():
                name = Path(item.filename).name
                if name.startswith("libbitsandbytes") and name not in BITSANDBYTES_KEPT:
                    continue
                content = old.read(item)
                if item.filename.endswith(".dist-info/RECORD"):
                    content = _record(content.decode())
                out.writestr(item, content)
        shutil.move(new, wheel)


def _record(record: str) -> bytes:
    rows = [row for row in csv.reader(io.StringIO(record)) if row]
    out = io.StringIO()
    kept = [
        r for r in rows if not Path(r[0]).name.startswith("libbitsandbytes") or Path(r[0]).name in BITSANDBYTES_KEPT
    ]
    csv.writer(out, lineterminator="\n").writerows(kept)
    return out.getvalue().encode()


def packed_size(folder: Path) -> int:
    """Return the bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", words[0], "--quiet", *words[1:]])
    if done.returncode:
        sys.exit(f"pip {' '.join(words[:1])} failed with {done.returncode}")


if __name__ == "__main__":
    main()
