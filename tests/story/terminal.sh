# Control characters of texts, names and options never reach a terminal; files and pipes get every byte as it is.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no Python with h5py and NumPy"
terminal=("$python" "$source_dir/tests/story/in_pty.py")

# A text with ESC, BEL, DEL, CR, U+0085, U+009B (CSI) and, beside them, what is no control character.
esc=$'\e[31m' bel=$'\a' del=$'\x7f' nel=$'\xc2\x85' csi=$'\xc2\x9b2J'
make_text 10000 | sed "s/tree/$esc$bel/;s/stone/$del$csi/;s/gate/$nel é€😀\r/;s/river/\t/" >text
name=$'run\e[5m\xc2\x9b'
"$unroll" train text "${tiny[@]}" -o "$name.h5" >/dev/null 2>&1 || fail "no model of characters"
"$unroll" train text "${tiny[@]}" --level byte -o byte.h5 >/dev/null 2>&1 || fail "no model of bytes"

# harmless FILE: valid UTF-8 without a control character but newline and tab; what was one is shown
harmless() {
  "$python" -c '
import sys, unicodedata
text = open(sys.argv[1], "rb").read().decode().replace("\r\x1b[K", "").replace("\r\n", "\n")
bad = [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]
sys.exit(repr(bad[:10]) if bad else 0)' "$1"
}

# plain FILE: what it was before it was shown; at level byte pairs of \x are bytes
plain() {
  "$python" -c '
import re, sys
shown = open(sys.argv[1], "rb").read()
shown = re.sub(rb"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)).encode(), shown)
sys.stdout.buffer.write(re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), shown))' "$1"
}

# ---------------------------------------------------------------- sample
for model in "$name.h5" byte.h5; do
  command=("$unroll" sample "$model" --length 2000 --temperature 9 --prime "$esc")
  "${command[@]}" >raw || fail "$model"
  "${terminal[@]}" "${command[@]}" >shown || fail "$model on a terminal"
  check "sample $model: harmless" harmless shown
  codes='\u001b \u0007 \u007f \u000d'
  [ "$model" = byte.h5 ] || codes+=' \u0085 \u009b'
  for code in $codes; do check "sample $model: $code is shown" grep -qF "$code" shown; done
  check "sample $model: it is the same text" cmp raw <(plain shown)
  check_not "sample $model: a pipe gets it as it is" cmp -s raw shown
done
check "bytes that are not UTF-8" grep -q '\\x[89a-f][0-9a-f]' shown

# Under mpirun the streams of mpirun decide: Open MPI gives every rank a terminal.
command=(mpirun -n 1 sh -c 'exec "$@"' sh "$unroll" sample "$name.h5" --length 500 --temperature 9)
"${command[@]}" >raw 2>/dev/null || fail "sample under mpirun"
check "mpirun: a file gets it as it is" cmp raw <("$unroll" sample "$name.h5" --length 500 --temperature 9)
"${terminal[@]}" "${command[@]}" >shown || fail "sample under mpirun on a terminal"
check "mpirun: harmless" harmless shown
check "mpirun: the same text" cmp raw <(plain shown)
"${terminal[@]}" --out-to again "${command[@]}" >/dev/null || fail "sample under mpirun into a file"
check "mpirun: a file gets it as it is, whatever standard error is" cmp raw again

# ----------------------------------------------- names, options and errors
cp "$name.h5" copy.h5
shows() { # shows STATUS COMMAND...
  local status=$1 ended
  shift
  "${terminal[@]}" "$unroll" "$@" >shown
  ended=$?
  check "$*: status $ended" [ $ended = "$status" ]
  check "$*: harmless" harmless shown
}
for page in info 'info --json' 'info --verify'; do
  # shellcheck disable=SC2086 # words
  shows 0 $page "$name.h5"
  check "$page: the name is shown" grep -qi 'run\\u001b\[5m\\u009b' shown
done
shows 0 compare "$name.h5" copy.h5
check "compare: the name is shown" grep -q 'run\\u001b\[5m\\u009b' shown
shows 0 eval --per-line "$name.h5" text
shows 0 eval --per-line --json "$name.h5" text
shows 2 info "$esc$csi"$'\x9b\xff'
check "a byte that is not UTF-8 is shown: $(cat shown)" grep -q '\\x9b\\xff' shown
shows 2 "$esc$csi"
shows 2 train text --"$esc$csi" 1
shows 2 train text --level "$csi"
shows 2 eval "$name.h5" "$csi"
shows 2 train "$name"$'\x9b' -o out.h5
cp text "text$csi$bel"
shows 0 train "text$csi$bel" "${tiny[@]}" -o "out$esc.h5" --checkpoint-every 5 --log-every 5
check "train: the name is shown" grep -q 'out\\u001b\[31m' shown
check "train: its own progress line is drawn" grep -q $'\r\e\[K' shown
shows 0 info "out$esc.h5"
check "info: the text is shown" grep -q 'text\\u009b2J\\u0007' shown
finish
