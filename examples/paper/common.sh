# Options and presets of the scripts in this folder, which begin with:  . "$(dirname "$0")/common.sh"; begin "$@"
# A script may set MODEL_laptop, LIMIT_gpu and so on before it calls begin: its own value of a preset.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
FIGURE=$(basename "$0" .sh)
elicitor() { python -m elicitor "$@"; }
stage() { echo "== $*" >&2; }

usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
  cat <<'TEXT'

  --preset NAME      smoke (made-up data, seconds), laptop (2 cores), gpu (8B on one GPU of 80 GB), cluster (70B, Ray, vLLM)
  --model NAME       instead of the preset's; see 'elicitor models'
  --train-model NAME fine-tune this one, where it is not --model (vllm:NAME is trained as hf:NAME)
  --tasks a,b        these tasks alone, in scripts that have several
  --limit N          rows to label and rows to test, each at most, instead of the preset's
  --seeds 0,1,2      instead of the preset's
  --dtype NAME       of searches and answers; bfloat16 is faster than float32 on a CPU that multiplies it (avx512_bf16, amx_bf16)
  --ray ADDRESS      search on a Ray cluster: local, auto, HOST:PORT
  --data-dir DIR     folder with the data files; docs/results/index.md says which
  --output-dir DIR   everything goes there; the same command again goes on where it stopped
  --no-train         leave fine-tuned models out; the table says so
  --dry-run          print prompts and tokens, write nothing
A flag wins over its preset. It ends in figure.png, table.md (the paper's number beside ours) and summary.json.
TEXT
}

# The value of a setting: the flag's, else the script's own for this preset, else the preset's.
choose() { # NAME SMOKE LAPTOP GPU CLUSTER
  local own="$1_$PRESET" value
  case $PRESET in smoke) value=$2 ;; laptop) value=$3 ;; gpu) value=$4 ;; cluster) value=$5 ;; esac
  printf -v "$1" '%s' "${!1:-${!own-$value}}"
}

begin() {
  COMMAND="bash examples/paper/$FIGURE.sh $*"
  PRESET=smoke GOLD='' MODELS=() LIMIT='' SEEDS='' TASKS='' RAY='' TRAIN_MODEL='' DTYPE='' DATA='' OUT='' TRAIN=yes DRY=''
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --no-train) TRAIN=no; shift; continue ;;
      --dry-run) DRY=yes; shift; continue ;;
      --preset | --model | --train-model | --tasks | --limit | --seeds | --dtype | --ray | --data-dir | --output-dir)
        if [ $# -lt 2 ]; then echo "error: $1 needs a value" >&2; exit 2; fi ;;
    esac
    case $1 in
      --preset) PRESET=$2 ;;
      --model) MODELS+=("$2") ;;
      --train-model) TRAIN_MODEL=$2 ;;
      --tasks) TASKS=$2 ;;
      --limit) LIMIT=$2 ;;
      --seeds) SEEDS=$2 ;;
      --dtype) DTYPE=$2 ;;
      --ray) RAY=$2 ;;
      --data-dir) DATA=$2 ;;
      --output-dir) OUT=$2 ;;
      *) echo "error: unknown option $1; --help lists them" >&2; exit 2 ;;
    esac
    shift 2
  done
  case $PRESET in smoke | laptop | gpu | cluster) ;; *) echo "error: --preset got $PRESET; use smoke, laptop, gpu or cluster" >&2; exit 2 ;; esac
  if [[ -n $LIMIT && ! $LIMIT =~ ^([2-9]|[1-9][0-9]+)$ ]]; then echo "error: --limit got $LIMIT; give 2 or more" >&2; exit 2; fi
  if [[ -n $TASKS && -z ${SEVERAL_TASKS:-} ]]; then echo "error: $FIGURE.sh has no tasks to choose from; leave --tasks out" >&2; exit 2; fi
  if [[ -n $TASKS && ! $TASKS =~ ^[a-z0-9_]+(,[a-z0-9_]+)*$ ]]; then echo "error: --tasks got $TASKS; write gsm8k,alpaca" >&2; exit 2; fi
  if [[ -n $SEEDS && ! $SEEDS =~ ^[0-9]+(,[0-9]+)*$ ]]; then echo "error: --seeds got $SEEDS; write 0,1,2" >&2; exit 2; fi
  case $DTYPE in '' | auto | float32 | bfloat16 | float16) ;; *) echo "error: --dtype got $DTYPE; use float32, bfloat16 or float16" >&2; exit 2 ;; esac

  # What a limit sets: short texts to label and to test, long ones (hundreds of tokens) likewise.
  SHORT=$LIMIT SHORT_TEST=$LIMIT LONG=$LIMIT LONG_TEST=$LIMIT MODEL=${MODELS[0]:-}
  #                  smoke     laptop    gpu                              cluster
  choose MODEL       fake      bundled   hf:meta-llama/Llama-3.1-8B       vllm:meta-llama/Llama-3.1-70B
  choose SHORT       8         32        null                             null
  choose SHORT_TEST  8         80        null                             null
  choose LONG        4         8         null                             null
  choose LONG_TEST   4         80        null                             null
  choose SEEDS       0,1       0,1,2     0,1,2                            0,1,2
  choose RAY         ''        ''        ''                               auto
  choose SEARCH      ensemble  ensemble  icm                              icm
  choose PLAN        tree      tree      tree                             tree
  choose CALIBRATION batch     batch     none                             none
  choose BATCH       64        64        256                              256
  choose ITERATIONS  12        null      null                             null
  choose DTYPE       auto      auto      bfloat16                         bfloat16
  choose TRAIN_PRESET small    small     paper-8b                         paper-70b
  choose EPOCHS      1         2         ''                               ''
  choose TRAIN_LIMIT 4         32        ''                               ''
  choose TRAIN_TEST  8         80        ''                               ''
  # The fake model has no weights, so smoke tests train the bundled one.
  TRAIN_MODEL=${TRAIN_MODEL:-$MODEL}
  if [[ $TRAIN_MODEL == fake* ]]; then TRAIN_MODEL=bundled; fi
  # What vLLM serves is trained by transformers.
  TRAIN_MODEL=${TRAIN_MODEL/#vllm:/hf:}
  [ ${#MODELS[@]} -gt 0 ] || MODELS=("$MODEL")
  FIRST_SEED=${SEEDS%%,*}
  RAY_FLAGS=()
  if [ -n "$RAY" ]; then
    RAY_FLAGS=(--ray "$RAY")
    if [ "$PRESET" = cluster ]; then RAY_FLAGS+=(--ray-gpus 4); fi
  fi
  # vLLM divides a model of 70 billion parameters among the four GPUs of a worker.
  PARALLEL=1
  if [[ $PRESET == cluster && $MODEL == vllm:* ]]; then PARALLEL=4; fi
  if [[ -z $DATA && $PRESET != smoke ]]; then echo "error: --preset $PRESET needs data; add --data-dir FOLDER" >&2; exit 2; fi
  if [[ -n $DATA && ! -d $DATA ]]; then echo "error: --data-dir $DATA is no folder" >&2; exit 2; fi
  OUT=${OUT:-runs/paper/$FIGURE-$PRESET}
  if [ -n "$DRY" ]; then
    KEEP=$OUT SCRATCH=$(mktemp -d) OUT=$SCRATCH/out
    trap 'rm -rf "$SCRATCH"' EXIT
  fi
  mkdir -p "$OUT"
  if [ -z "$DATA" ]; then
    DATA=$OUT/data
    python "$HERE/smoke_data.py" "$DATA"
  fi
  DATA=$(cd "$DATA" && pwd) OUT=$(cd "$OUT" && pwd)
  # The paper's own files where they are wanted and there, the smaller cut of them elsewhere.
  TRUTHFULQA=$DATA/truthfulqa_pilot_train.jsonl TRUTHFULQA_TEST=$DATA/truthfulqa_pilot_test.jsonl
  if [[ $PRESET == gpu || $PRESET == cluster ]]; then
    TRUTHFULQA=$DATA/truthfulqa_paper_train.jsonl TRUTHFULQA_TEST=$DATA/truthfulqa_paper_test.jsonl
  fi
  # What scripts of one task label: TruthfulQA as in the paper; on a laptop film reviews, of which a small model knows something.
  TASK=truthfulqa ROWS=$TRUTHFULQA TEST_ROWS=$TRUTHFULQA_TEST
  if [ "$PRESET" = laptop ]; then TASK=sentiment ROWS=$DATA/movie_review_sentiment.jsonl TEST_ROWS=null; fi
}

# Settings of 'elicitor label' that a preset decides, as YAML.
settings() {
  cat <<YAML
search: $SEARCH
batch_size: $BATCH
plan: {kind: $PLAN}
objective: {calibration: $CALIBRATION}
icm: {iterations: $ITERATIONS}
backend: {dtype: $DTYPE, vllm: {tensor_parallel_size: $PARALLEL}}
YAML
}

# A suite whose tasks stand on standard input, in the folder of that name.
suite() { # NAME MODEL CONDITIONS
  local folder="$OUT/$1"
  {
    printf 'model: "%s"\nseeds: [%s]\nconditions: [%s]\nlabel:\n' "$2" "$SEEDS" "$3"
    settings | sed 's/^/  /'
    echo "tasks:"
    sed 's/^/  /'
  } > "$folder.yaml"
  local flags=(--suite "$folder.yaml")
  if [ -n "$TASKS" ]; then flags+=(--tasks "$TASKS"); fi
  if [ -n "$DRY" ]; then elicitor eval "${flags[@]}" --dry-run; return; fi
  elicitor eval "${flags[@]}" --output-dir "$folder" --resume "${RAY_FLAGS[@]}"
}

# Pairs of answers, on a laptop the short ones alone: the others have hundreds of tokens.
preference_pairs() { # FILE; sets PAIRS_FILE
  PAIRS_FILE=$1
  if [ "$PRESET" = laptop ]; then
    PAIRS_FILE=$OUT/short-pairs.jsonl
    python "$HERE/rows.py" short "$1" --longest 300 -o "$PAIRS_FILE"
  fi
}

# One thing varied at a time, on the first rows of a file.
ablation() { # NAME DATA TASK LIMIT FLAGS...
  local folder="$OUT/$1" data=$2 task=$3 limit=$4
  shift 4
  settings > "$folder.yaml"
  local flags=("$data" --task "$task" --model "$MODEL" --seeds "$SEEDS" --config "$folder.yaml" "$@")
  if [ "$limit" != null ]; then flags+=(--limit "$limit"); fi
  if [ -n "$DRY" ]; then echo "$task:"; elicitor ablate "${flags[@]}" --dry-run; return; fi
  elicitor ablate "${flags[@]}" --output-dir "$folder" --resume
}

# Models trained on the labels of a suite's first search and on others, beside the suite's own rows.
trained() { # SUITE TASK CONDITIONS
  if [[ $TRAIN == no || ( -n $TASKS && ,$TASKS, != *,$2,* ) ]]; then return; fi
  local from="$OUT/$1/$2" folder="$OUT/trained-$2"
  if [ -n "$DRY" ]; then
    echo "$2: then one training for each of $3 on at most ${TRAIN_LIMIT:-all} examples; 'elicitor train sft RUN --dry-run' counts its tokens"
    return
  fi
  local flags=(--test "$from/test.jsonl" --conditions "$3" --model "$TRAIN_MODEL" --preset "$TRAIN_PRESET")
  if [ -n "$EPOCHS" ]; then flags+=(--epochs "$EPOCHS"); fi
  if [ -n "$TRAIN_LIMIT" ]; then flags+=(--limit "$TRAIN_LIMIT"); fi
  if [ -n "$TRAIN_TEST" ]; then flags+=(--test-limit "$TRAIN_TEST"); fi
  if [ "$PRESET" = smoke ]; then SEEDS=$FIRST_SEED; fi
  elicitor train compare "$from/seed-$FIRST_SEED" "${flags[@]}" --seeds "$SEEDS" --output-dir "$folder" --resume
}

# The figure, the table and the summary, from what the commands wrote.
finish() { # FIGURE-KINDS FOLDERS...
  if [ -n "$DRY" ]; then
    echo "without --dry-run everything goes to $KEEP"
    return
  fi
  local kinds=() kind
  for kind in $1; do kinds+=(--figure "$kind"); done
  shift
  # Label accuracy along a search needs gold beside it.
  if [ -n "$GOLD" ]; then kinds+=(--gold "$GOLD"); fi
  if [ $# -gt 0 ]; then elicitor plot "$@" --output "$OUT/figure.png" "${kinds[@]}"; fi
  python "$HERE/summary.py" "$FIGURE" "$OUT" --preset "$PRESET" --search "$SEARCH" --calibration "$CALIBRATION" --command "$COMMAND"
}
