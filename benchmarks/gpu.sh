#!/usr/bin/env bash
# One run of everything that only a GPU can show, in under eight minutes, without a network.
#
#     benchmarks/gpu.sh                                  the torch of PYTHON (default: python3) and what lies beside it
#     benchmarks/gpu.sh --wheels DIR                     an environment made of the wheels in DIR, removed afterwards
#     benchmarks/gpu.sh --shape tiny --device cpu        a rehearsal
#
# Other options go to benchmarks/gpu.py (--help says which); the JSON lies in gpu.json unless --output names a file.
# What is not among the wheels (kronfluence, bergson, deepspeed) leaves its own numbers out. Installing counts as a part
# of the minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=
minutes=8
output=gpu.json
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=${2:?--wheels needs a folder}; shift 2 ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    --output) output=${2:?--output needs a file}; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
started=$SECONDS
if [ -n "$wheels" ]; then
  if [ ! -d "$wheels" ]; then
    echo "gpu.sh: --wheels $wheels is no folder" >&2
    exit 2
  fi
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  # what the system has counts too: wheels of torch are large, and often there already
  "$python" -m venv --system-site-packages "$folder/venv"
  python=$folder/venv/bin/python
  install=("$python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$wheels")
  "${install[@]}" torch transformers safetensors tokenizers numpy PyYAML >&2
  # without what they declare: kronfluence names torchvision, which it never imports
  "${install[@]}" accelerate datasets einops opt_einsum scikit-learn >&2 || echo "gpu.sh: no wheels for kronfluence's own needs" >&2
  for package in einconv kronfluence bergson deepspeed megatron-core; do
    "${install[@]}" --no-deps "$package" >&2 2>/dev/null || echo "gpu.sh: $package is not among the wheels; its numbers are left out" >&2
  done
fi
left=$(awk -v minutes="$minutes" -v gone="$((SECONDS - started))" 'BEGIN { printf "%.2f", minutes - gone / 60 }')
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
"$python" "$here/benchmarks/gpu.py" --minutes "$left" --output "$output" ${rest[@]+"${rest[@]}"} > /dev/null
echo "gpu.sh: $output" >&2
