# What the README tells people to type works: every code block marked `tested`, in order, in one
# folder, where corpus.txt and test.txt are somebody's text.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"

make_text 200000 >corpus.txt
make_text 20000 >test.txt
mkdir bin
ln -s "$unroll" bin/unroll
ln -s "$(command -v "$python")" bin/python3
export PATH=$work/bin:$PATH

awk '
  /^```/ && inside { close(name); inside = 0; next }
  /^```[a-z]+ tested$/ { inside = 1; name = sprintf("block%02d.%s", ++n, substr($1, 4)); next }
  inside { print > name }' "$source_dir/README.md"

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
  *) run=(false) ;;
  esac
  checks=$((checks + 1))
  timeout 300 "${run[@]}" >log 2>&1 || fail "$block: $(tail -5 log)"
done
check "the README has blocks to test" [ "$checks" -ge 5 ]
finish
