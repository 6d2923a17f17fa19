# unroll report: the page in a headless browser. Every figure is drawn from the numbers of the run files, nothing is
# asked from the network, names and texts are only text.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"
for browser in chromium chromium-browser google-chrome ''; do
  if command -v "$browser" >/dev/null; then break; fi
done
[ -n "$browser" ] || skip "no chromium"

export OMP_NUM_THREADS=1
make_text 9000 >text
train() { quiet 0 "$unroll" train text -o "$1" --hidden 8 --batch 4 --steps 16 --epochs 1 --overwrite "${@:2}"; }
check "a run" train one.h5 --log-every 4 --valid-every 20 --diagnose-every 20 --clip 0.1
check "an lstm" train lstm.h5 --cell lstm --layers 2 --log-every 4 --diagnose-every 40
check "a minGRU of bytes" train min.h5 --cell mingru --level byte --log-every 4
check "one report" train single.h5 --log-every 5 --max-steps 5 --valid-fraction 0
check "no report" train none.h5 --max-steps 3 --valid-fraction 0
# In a name of HTML the slashes part folders.
evil='</script><script>console.error(1)</script><!--<script>.h5'
mkdir -p "${evil%/*}" && cp one.h5 "$evil"
sweep=()
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
  check "run $i of a sweep" train "s$i.h5" --log-every 10 --lr "${i}e-4" --max-steps 40 --valid-every 20
  sweep+=("s$i.h5")
done
# Losses that are not finite and far above a guess, as a diverged run would have them.
cp one.h5 nan.h5
"$python" - <<'PY'
import h5py
with h5py.File("nan.h5", "r+") as run:
    for name in "loss", "grad_norm", "tokens_per_second":
        run["metrics/train"][name][1] = float("nan")
        run["metrics/train"][name][2] = float("inf")
    run["metrics/train/loss"][3] = 1e10
    run["metrics/valid/loss"][0] = float("inf")
    run["weights/layer0/W_hh"][0, 0] = float("nan")
PY

# look PAGE FIGURES OPTION...: the page as the browser has it in `dom`, with so many figures; no error, no request
look() {
  local page=$1 figures=$2
  shift 2
  timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/profile" \
    --proxy-server=127.0.0.1:9 --enable-logging=stderr --virtual-time-budget=4000 --dump-dom "$@" "file://$work/$page" >dom 2>log
  check "$page: no error on the console: $(grep CONSOLE log | head -3)" [ "$(grep -c CONSOLE log)" = 0 ]
  check "$page: all is drawn, to the end of the page" grep -q "<body data-ready=\"$figures\"" dom
  check "$page: as many canvases" [ "$(grep -o '<canvas' dom | wc -l)" = "$figures" ]
}

# page OUT RUN...
page() {
  local kilobytes
  quiet 0 "$unroll" report -o "$1" "${@:2}" && [ ! -s out ] || return
  kilobytes=$((($(wc -c <"$1") + 999) / 1000))
  grep -qx "$1: a page of [0-9]* runs\?, $kilobytes kB, for a browser" err
}

check "a page of one run" page one.html one.h5
check "which is said" grep -q ': a page of 1 run, ' err
look one.html 10
check_not "nothing is missing" grep -q -e '↑ Above [0-9]' -e '[0-9] reports\? without a finite' dom
check "dark" look one.html 10 --force-dark-mode --blink-settings=preferredColorScheme=0
check_not "asks for nothing" grep -q -E '(src|href)="?[a-z]*:|url\(|@import|XMLHttpRequest|WebSocket' one.html

# The figures have as many points as the file, and the data its values.
cat >compare.py <<'PY'
import json, re, sys
import h5py
import numpy as np

page, dom = open(sys.argv[1]).read(), open(sys.argv[2]).read()
data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))
shown = {name: int(n) for name, n in re.findall(r'<figure id="([^"]*)" data-points="(\d+)"', dom)}
n = lambda a: int(np.isfinite(a).sum())
points = dict.fromkeys(["loss", "norm", "rate", "speed"], 0)
for run in data["runs"]:
    with h5py.File(run["file"]) as file:
        train, valid = file["metrics/train"], file["metrics/valid"]
        points["loss"] += n(train["loss"][:]) + n(valid["loss"][:])
        for figure, name in ("norm", "grad_norm"), ("rate", "learning_rate"), ("speed", "tokens_per_second"):
            points[figure] += n(train[name][:])
        for table in train, valid:
            for name, column in table.items():
                mine = np.array(run["train" if table is train else "valid"][name], dtype=float)
                theirs = column[:].astype(float)
                assert np.array_equal(np.isfinite(mine), np.isfinite(theirs)), (run["file"], name)
                assert np.allclose(mine[np.isfinite(mine)], theirs[np.isfinite(theirs)], rtol=1e-6), (run["file"], name)
        clipped = (train["clip_scale"][:] < 1).mean() if len(train["clip_scale"]) else None
        assert run["clip"]["share"] is None and clipped is None or abs(run["clip"]["share"] - clipped) < 1e-6
        if run["flow"]:
            flow = file["diagnostics"]
            assert np.allclose(np.array(run["flow"]["layers"][0]["norm_mean"], float), flow["norm_mean"][:, 0], rtol=1e-6)
            assert run["spectra"]["step"] == flow["step"][-1]
        elif isinstance(run["spectra"], dict):
            H = file["config"].attrs["hidden"]
            W = file["weights/layer0/W_hh"][:H]
            mine = np.sort_complex(np.array(run["spectra"]["layers"][0]["blocks"][0]["re"]) + 1j * np.array(run["spectra"]["layers"][0]["blocks"][0]["im"]))
            assert np.allclose(mine, np.sort_complex(np.linalg.eigvals(W.astype(float))), atol=1e-5), run["file"]
assert {k: shown[k] for k in points} == points, (shown, points)
print(*[run["file"] for run in data["runs"]])
PY
check "the numbers of the file" "$python" compare.py one.html dom
for name in loss norm clip rate speed parts spectrum-0 flow-0 reach-0 growth-0 split; do
  check "figure $name has points" grep -q "<figure id=\"$name\" data-points=\"[1-9]" dom
done

check "a page of twelve runs" page twelve.html "${sweep[@]}"
check "which is said" grep -q ': a page of 12 runs, ' err
look twelve.html 7 # the sweep, loss, norm, clip, rate, speed, spectrum
check "the numbers of the files" "$python" compare.py twelve.html dom
check "all are in the ranking" [ "$(grep -o '<td class="left"' dom | wc -l)" = 12 ]
check "what differs is" grep -q '<th class="option">lr</th>' dom
check "cells of every kind" page cells.html one.h5 lstm.h5 min.h5
look cells.html 25
check "the numbers of the files" "$python" compare.py cells.html dom
check "a minGRU has no spectrum" grep -q 'a minGRU has no recurrent matrix' dom
check "numbers that are not finite" page nan.html nan.h5
look nan.html 10
check "the numbers of the file" "$python" compare.py nan.html dom
check "losses that would hide all others are drawn at the edge" grep -q '↑ Above [0-9.]*, twice a uniform guess' dom
check "what is missing is said" grep -q '2 reports without a finite loss are missing' dom
check "one report" page single.html single.h5
look single.html 7
check "no report" page none.html none.h5
look none.html 1
check "is said" grep -q 'no reports yet' dom
check "the same in company" page mixed.html none.h5 nan.h5 single.h5
look mixed.html 9

check "a name that is HTML" page evil.html "$evil"
look evil.html 10
check "is shown as it is" grep -q -F '&lt;/script&gt;&lt;script&gt;console.error(1)' dom
check "and ends nothing" [ "$(grep -c -F '<script>console' evil.html)" = 0 ]

check "the image" timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
  --user-data-dir="$work/profile" --virtual-time-budget=4000 --window-size=400,3000 --screenshot=phone.png "file://$work/one.html" 2>log
check "is there" [ -s phone.png ]

# What is in the way.
refused() { quiet 2 "$unroll" report "$@" && [ "$(wc -l <err)" = 1 ]; }
check "a report is replaced" page one.html one.h5
cp text other
check "another file is not" refused one.h5 -o other
check "it is as it was" cmp text other
check "but with --overwrite" page other one.h5 --overwrite
check "never the run file" refused one.h5 -o one.h5 --overwrite
check "no folder" refused one.h5 -o nowhere/report.html
check "a file that is not there" refused gone.h5 -o gone.html
check_not "leaves nothing" [ -e gone.html ]
check "no run file" refused text -o gone.html
finish
