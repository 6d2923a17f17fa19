#!/bin/bash
# No include points up: a folder of src uses itself and those below it in the map of the README.
#
#   layers.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"

mapfile -t folders < <(sed -n 's/^| `src\/\([a-z]*\)` .*/\1/p' "$source_dir/README.md")
check "the map has folders" [ ${#folders[@]} -ge 8 ]
check "and all there are" [ "$(printf '%s\n' "${folders[@]}" | sort)" = "$(cd "$source_dir/src" && printf '%s\n' * | sort)" ]
declare -A height
for i in "${!folders[@]}"; do height[${folders[i]}]=$((${#folders[@]} - i)); done

lines=0
while IFS=: read -r file line text; do
  from=${file#"$source_dir/src/"} from=${from%%/*}
  to=${text#*\"} to=${to%%/*}
  lines=$((lines + 1))
  check "src/${file#"$source_dir/src/"}:$line: $text" [ "${height[$from]}" -ge "${height[$to]:-99}" ]
done < <(grep -rn '^#include "' "$source_dir/src")
check "there are include lines" [ $lines -gt 200 ]

# The public headers are of the whole: they use each other alone.
check_not "a public header includes one of src" grep -rn '^#include "' "$source_dir/include"
finish
