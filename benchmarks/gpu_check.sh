#!/usr/bin/env bash
# Everything there is to check on a machine with a GPU, offline: builds the extension in place against the torch that is there,
# runs the tests of operators, graphs and layers on the device, compute-sanitizer on small cases, and the quick GPU benchmark.
#
#   benchmarks/gpu_check.sh                     all stages, within 10 minutes
#   benchmarks/gpu_check.sh build bench         some of: build tests sanitizer bench
#
# OUT=folder for logs and results (./gpu_check_out)   PYTHON=python3   GPU_CHECK_SECONDS=570 for all
# TORCH_CUDA_ARCH_LIST (that of the GPU)   MAX_JOBS (all cores)   DEVICE=cpu tries this script without a GPU
#
# Each stage has its own time limit. A stage that fails does not stop the next; the exit status is 1 if one failed. The summary
# comes last and fits into 12,000 characters.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
OUT=${OUT:-gpu_check_out}
total=${GPU_CHECK_SECONDS:-570}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

stages=("$@")
if [ ${#stages[@]} -eq 0 ]; then stages=(build tests sanitizer bench); fi
for stage in "${stages[@]}"; do
  case $stage in
    build | tests | sanitizer | bench) ;;
    *) echo "gpu_check.sh: unknown stage '$stage'; choose from build, tests, sanitizer, bench" >&2 && exit 2 ;;
  esac
done

summary=()      # lines of the table
failed_logs=()  # whose ends are shown
status=0

# report STAGE STATUS SECONDS DETAIL
report() {
  summary+=("$(printf '%-12s %-8s %4s s  %s' "$1" "$2" "$3" "${4:0:150}")")
  printf '== %s: %s (%s s) %s\n' "$1" "$2" "$3" "$4"
}

# seconds_for LIMIT [KEEP]: the limit, or what is left beside KEEP seconds for later stages, but 25 s at least while there are any
seconds_for() {
  local left=$((total - SECONDS - 5)) seconds=$1
  local spare=$((left - ${2:-0}))
  if [ "$spare" -lt "$seconds" ]; then seconds=$((spare > 25 ? spare : 25)); fi
  echo $((seconds < left ? seconds : left))
}

# wanted STAGE: whether it was asked for
wanted() { case " ${stages[*]} " in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# run_stage NAME SECONDS COMMAND...: runs with a time limit, at which it is interrupted; sets rc, took and log
run_stage() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  log="$OUT/$name.log"
  if [ "$limit" -lt 10 ]; then
    echo "no time left" > "$log"
    rc=124
  else
    printf '== %s (at most %s s)\n' "$name" "$limit"
    timeout --signal=INT --kill-after=10 "$limit" "$@" > "$log" 2>&1
    rc=$?
  fi
  took=$((SECONDS - start))
}

# judge NAME DETAIL: reports the stage that ran last by its exit status
judge() {
  case $rc in
    0) report "$1" ok "$took" "$2" ;;
    124 | 137) report "$1" TIMEOUT "$took" "$2" ;;
    *) report "$1" FAILED "$took" "$2" ;;
  esac
  if [ "$rc" -ne 0 ]; then
    status=1
    failed_logs+=("$log")
  fi
}

last_line() { grep -v '^ *$' "$1" | tail -n 1; }

describe_device() {
  log="$OUT/device.log"
  {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,temperature.gpu --format=csv,noheader 2> /dev/null
    nvcc --version 2> /dev/null | grep release
    "$PYTHON" -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)'
  } > "$log" 2>&1
  architecture=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2> /dev/null)
  tr '\n' ';' < "$log"
  echo
  if [ -z "$architecture" ] && [ "$DEVICE" = cuda ]; then
    echo "gpu_check.sh: torch sees no GPU here; DEVICE=cpu tries this script without one" >&2
    exit 2
  fi
}

stage_build() {
  local cuda=1
  if [ "$DEVICE" = cpu ]; then cuda=0; fi
  run_stage build "$(seconds_for 400)" env GAT_EXT_CUDA="$cuda" MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
    TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-$architecture}" "$PYTHON" setup.py build_ext --inplace
  if [ "$rc" -eq 0 ]; then
    "$PYTHON" -c 'from gat_ext import _C; print(_C.build_info())' >> "$log" 2>&1
    rc=$?
  fi
  judge build "$(last_line "$log")"
}

# The test modules whose imports are all there; says of the others what they lack.
runnable_tests() {
  "$PYTHON" - "$@" << 'PY'
import ast, importlib.util, sys

for path in sys.argv[1:]:
    names = set()
    for node in ast.parse(open(path).read()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    missing = sorted(name for name in names if importlib.util.find_spec(name) is None)
    if missing:
        print(f"skipped {path}: no module {', '.join(missing)}", file=sys.stderr)
    else:
        print(path)
PY
}

stage_tests() {
  local suites=(tests/test_edge_attention.py tests/test_sparse_ops.py tests/test_graph.py tests/test_nn.py tests/test_native.py)
  local tests workers=() keep=0
  mapfile -t tests < <(runnable_tests "${suites[@]}" 2> "$OUT/tests_skipped.log")
  if "$PYTHON" -c 'import xdist' 2> /dev/null; then workers=(-n "$(($(nproc) < 16 ? $(nproc) : 16))"); fi
  if wanted sanitizer; then keep=$((keep + 60)); fi
  if wanted bench; then keep=$((keep + 120)); fi
  run_stage tests "$(seconds_for 180 "$keep")" env OMP_NUM_THREADS=1 "$PYTHON" -m pytest -q --tb=short -p no:cacheprovider \
    "${workers[@]}" "${tests[@]}"
  judge tests "$(last_line "$log") $(tr '\n' ' ' < "$OUT/tests_skipped.log")"
}

find_sanitizer() {
  local nvcc folder
  nvcc=$(command -v nvcc) && nvcc=$(dirname "$(readlink -f "$nvcc")")
  command -v compute-sanitizer && return
  for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" "${nvcc:-}" /usr/local/cuda/bin; do
    if [ -x "$folder/compute-sanitizer" ]; then
      echo "$folder/compute-sanitizer"
      return
    fi
  done
}

stage_sanitizer() {
  local sanitizer tool seconds prefix keep=0
  sanitizer=$(find_sanitizer)
  if [ -z "$sanitizer" ] && [ "$DEVICE" = cuda ]; then
    report sanitizer absent 0 "compute-sanitizer is neither on PATH nor in CUDA_HOME/bin"
    return
  fi
  if wanted bench; then keep=200; fi
  for tool in memcheck racecheck synccheck; do
    seconds=$(seconds_for 60 "$keep")
    prefix=("$sanitizer" --tool "$tool" --error-exitcode 86 --print-limit 20)
    if [ "$tool" = memcheck ]; then prefix+=(--report-api-errors no); fi
    if [ "$DEVICE" = cpu ]; then prefix=(env); fi
    run_stage "$tool" "$seconds" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 OMP_NUM_THREADS=1 "${prefix[@]}" \
      "$PYTHON" benchmarks/cuda_exercise.py --device "$DEVICE" --seconds $((seconds > 40 ? seconds - 25 : seconds / 2))
    if grep -q 'Device not supported' "$log"; then
      report "$tool" absent "$took" "compute-sanitizer: Device not supported"
    else
      judge "$tool" "$(grep SUMMARY "$log" | tail -n 1) $(grep 'cases on' "$log")"
    fi
  done
}

stage_bench() {
  local seconds options=(--quick)
  seconds=$(seconds_for 330)
  if [ "$DEVICE" = cpu ]; then options+=(--tiny --seconds 0 --peers dense pyg); fi
  run_stage bench "$seconds" "$PYTHON" benchmarks/bench_cuda.py --device "$DEVICE" "${options[@]}" \
    --budget $((seconds > 60 ? seconds - 30 : seconds / 2)) --out "$OUT/bench"
  judge bench "$(grep -c ' ms$' "$log") figures; $(grep 'results right' "$OUT/bench/targets.md" 2> /dev/null)"
}

show_bench() {
  if [ ! -f "$OUT/bench/targets.md" ]; then return; fi
  printf '\n== figures (the whole table: %s)\n' "$OUT/bench/cuda.md"
  cut -c 1-140 "$OUT/bench/digest.txt" | head -c 5400
  printf '\n== targets\n'
  cut -c 1-600 "$OUT/bench/targets.md" | head -c 4800
}

show_failures() {
  local one
  for one in "${failed_logs[@]+"${failed_logs[@]}"}"; do
    printf '\n== end of %s\n' "$one"
    grep -v '^ *$' "$one" | tail -n 10 | cut -c 1-160 | tail -c 900
  done
}

describe_device
for stage in "${stages[@]}"; do
  case $stage in
    build) stage_build ;;
    tests) stage_tests ;;
    sanitizer) stage_sanitizer ;;
    bench) stage_bench ;;
  esac
done
if wanted bench; then show_bench; fi
show_failures
printf '\n== summary after %s s (logs in %s): %s\n' "$SECONDS" "$OUT" "$(tr '\n' ';' < "$OUT/device.log")"
printf '%s\n' "${summary[@]}"
exit $status
