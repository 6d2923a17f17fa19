#!/usr/bin/env Rscript
# Losses of several runs, the best validation first, and a picture of their curves, curves.pdf:
#
#   Rscript curves.R run.h5 other.h5
#
# Needs rhdf5 of Bioconductor (on Debian: apt-get install r-bioc-rhdf5).
suppressPackageStartupMessages(library(rhdf5))

files <- commandArgs(trailingOnly = TRUE)
read_run <- function(file) {
  columns <- function(group) as.data.frame(lapply(h5read(file, group), as.vector))
  list(
    config = h5readAttributes(file, "config"),
    token = as.vector(h5read(file, "vocab/token")),
    train = columns("metrics/train"),
    valid = columns("metrics/valid"),
    W_xh = t(h5read(file, "weights/layer0/W_xh")) # R has the first dimension last: t() is the matrix of the equations
  )
}
runs <- lapply(files, read_run)

# One table: a row for each run, a column for each option that differs.
configs <- lapply(runs, function(run) vapply(run$config, function(value) as.character(value)[1], ""))
options <- Reduce(intersect, lapply(configs, names))
options <- setdiff(options, c("out", "overwrite", "resume", "command_line"))
table <- do.call(rbind, lapply(configs, function(config) config[options]))
table <- as.data.frame(table[, apply(table, 2, function(x) length(unique(x)) > 1), drop = FALSE])
best <- vapply(runs, function(run) if (nrow(run$valid)) min(run$valid$loss) else Inf, 0)
at <- vapply(runs, function(run) if (nrow(run$valid)) as.numeric(run$valid$step[which.min(run$valid$loss)]) else Inf, 0)
table <- cbind(run = files, valid_loss = sprintf("%.6f", best), step = at, table)
print(table[order(best), ], row.names = FALSE)

losses <- unlist(lapply(runs, function(run) c(run$train$loss, run$valid$loss)))
steps <- unlist(lapply(runs, function(run) c(run$train$step, run$valid$step)))
pdf("curves.pdf", width = 8, height = 5)
plot(range(steps), range(losses[is.finite(losses)]), type = "n", xlab = "updates", ylab = "loss [nats per token]")
for (k in seq_along(runs)) {
  lines(runs[[k]]$train$step, runs[[k]]$train$loss, col = k)
  lines(runs[[k]]$valid$step, runs[[k]]$valid$loss, col = k, type = "o", lty = 2)
}
legend("topright", c(files, "validation"), col = c(seq_along(files), 1), lty = c(rep(1, length(files)), 2), bty = "n")
invisible(dev.off())
cat("curves.pdf\n")
