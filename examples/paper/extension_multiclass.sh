#!/usr/bin/env bash
# Beyond the paper: four labels. Which topic is a statement about?
#
#     bash examples/paper/extension_multiclass.sh --preset laptop --data-dir DATA
#
# Files: statements_cities.jsonl, statements_animals.jsonl, statements_companies.jsonl, statements_elements.jsonl.

. "$(dirname "$0")/common.sh"
begin "$@"
files=("$DATA"/statements_{cities,animals,companies,elements}.jsonl)
python "$HERE/rows.py" join "${files[@]}" --label topic --each 250 -o "$OUT/topics.jsonl"
suite suite "$MODEL" zero_shot,random,found,golden <<YAML
- {name: topics, task: "$HERE/topics.yaml", data: "$OUT/topics.jsonl", limit: $SHORT, test_limit: $SHORT_TEST}
YAML
finish bars "$OUT/suite"
