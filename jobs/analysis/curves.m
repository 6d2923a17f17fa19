## Losses of several runs, the best validation first, and a picture of their curves:
##
##   octave-cli curves.m run.h5 other.h5
##
## Needs octave-netcdf; the picture, curves.svg, needs gnuplot too. read_run.m beside this file reads everything else.
1; # a script
addpath (fileparts (mfilename ("fullpath")));

files = argv ();
names = {"hidden", "layers", "cell", "lr", "batch", "steps", "seed"}; # options to show: any of run.config
runs = cellfun (@read_run, files, "UniformOutput", false);

best = step = Inf (1, numel (runs));
for k = 1:numel (runs)
  valid = runs{k}.metrics.valid;
  if (! isempty (valid.loss))
    [best(k), at] = min (valid.loss);
    step(k) = valid.step(at);
  endif
endfor
[~, order] = sort (best);
for k = order
  printf ("%-20s  valid loss %.6f at step %d ", files{k}, best(k), step(k));
  for name = names
    value = runs{k}.config.(name{1});
    if (ischar (value))
      printf (" %s %s", name{1}, value);
    else
      printf (" %s %g", name{1}, value);
    endif
  endfor
  printf ("\n");
endfor

if (any (strcmp (available_graphics_toolkits (), "gnuplot")))
  warning ("off", "Octave:gnuplot-graphics");
  graphics_toolkit gnuplot
  figure ("visible", "off");
  hold on
  for k = 1:numel (runs)
    m = runs{k}.metrics;
    line = plot (m.train.step, m.train.loss, "-", "displayname", files{k});
    plot (m.valid.step, m.valid.loss, "o--", "color", get (line, "color"), "handlevisibility", "off");
  endfor
  xlabel ("updates");
  ylabel ("loss [nats per token], validation dashed");
  legend ("show", "interpreter", "none");
  print ("curves.svg", "-dsvg");
  printf ("curves.svg\n");
endif
