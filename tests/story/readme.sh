# What the README and its guides tell people to type works: every code block marked `tested`, in the order in which the
# README names the guides, in one folder, where input.txt, corpus.txt and test.txt are somebody's text. What they
# show of a report has the keys of a report. Their links lead to files and headings, and the man page names the guides.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"

make_text 12000 >input.txt
make_text 200000 >corpus.txt
make_text 20000 >test.txt
mkdir bin
ln -s "$unroll" bin/unroll
ln -s "$(command -v "$python")" bin/python3
export PATH=$work/bin:$PATH

mapfile -t guides < <(grep -o 'jobs/guides/[a-z-]*\.md' "$source_dir/README.md" | awk '!seen[$0]++')
check "the README names every guide" diff <(printf '%s\n' "${guides[@]}" | sort) <(cd "$source_dir" && ls jobs/guides/*)
for guide in "${guides[@]}"; do
  check "the man page names $guide" grep -q "${guide##*/}" <(sed 's/\\-/-/g' "$build_dir/unroll.1")
done
documents=("$source_dir/README.md" "${guides[@]/#/$source_dir/}")

awk '
  /^```/ && inside { close(name); inside = 0; next }
  /^```[a-z]+ tested$/ {
    inside = 1; document = FILENAME; sub(/.*\//, "", document)
    name = sprintf("block%02d.%s.%s", ++n, document, substr($1, 4)); next
  }
  inside { print > name }' "${documents[@]}"

for block in block*; do
  echo "== $block"
  case $block in
  *.sh) run=(bash -e "$block") ;;
  *.python)
    if grep -q 'import torch' "$block" && ! "$python" -c 'import torch' 2>/dev/null; then
      echo "not checked: no torch"
      # It must at least be Python.
      run=("$python" -m py_compile "$block")
    else
      run=("$python" "$block")
    fi
    ;;
  *.c | *.cmake) continue ;; # story.install builds them
  *) run=(false) ;;
  esac
  checks=$((checks + 1))
  timeout 300 "${run[@]}" >log 2>&1 || fail "$block: $(tail -5 log)"
  cat log >>logs
done
check "the README has blocks to test" [ "$checks" -ge 5 ]

# Keys are every second word from the second on.
keys_of() { awk '$1 == "train" || $1 == "valid" { line = $1; for (i = 2; i < NF; i += 2) line = line " " $i; print line }' "$@" | sort -u; }
keys_of "${documents[@]}" >shown
check "reports are shown" [ -s shown ]
check "reports as they are: $(comm -23 shown <(keys_of logs))" [ -z "$(comm -23 shown <(keys_of logs))" ]

checks=$((checks + 1))
(cd "$source_dir" && find . -path './.*' -prune -o -path './build*' -prune -o -name '*.md' -print0) |
  (cd "$source_dir" && xargs -0 "$python" tests/story/links.py) || fail "links"
finish
