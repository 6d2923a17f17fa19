#include "base/build.h"
#include "cli/cli.h"

#include <ctype.h>
#include <string.h>

/* Print text for roff: backslash and hyphen mean themselves, a leading dot or quote is no macro. */
static void print_roff(const char *text, size_t n)
{
  if (n > 0 && (text[0] == '.' || text[0] == '\'')) { (void)printf("\\&"); }
  for (size_t i = 0; i < n; ++i) {
    if (text[i] == '\\') {
      (void)printf("\\e");
    } else if (text[i] == '-') {
      (void)printf("\\-");
    } else {
      (void)putchar(text[i]);
    }
  }
}

/* Paragraphs between empty lines; indented lines stand as they are. */
static void print_paragraphs(const char *text)
{
  bool verbatim = false;
  while (*text != '\0') {
    size_t n = strcspn(text, "\n");
    bool indented = text[0] == ' ';
    if (indented != verbatim) { (void)printf(indented ? ".nf\n" : ".fi\n"); }
    verbatim = indented;
    if (n == 0) {
      (void)printf(".PP\n");
    } else {
      print_roff(text, n);
      (void)printf("\n");
    }
    text += n + (text[n] == '\n');
  }
  if (verbatim) { (void)printf(".fi\n"); }
}

static void print_options(const option_table *table)
{
  const char *heading = "";
  for (size_t k = 0; k < table->n_rows; ++k) {
    const option *row = &table->rows[k];
    char text[1024];
    if (strcmp(row->heading, heading) != 0) {
      heading = row->heading;
      (void)printf(".SS \"%s\"\n", heading);
    }
    options_spell(row, sizeof text, text);
    (void)printf(".TP\n\\fB");
    print_roff(text, strlen(text));
    (void)printf("\\fR\n");
    options_describe(row, sizeof text, text);
    print_roff(text, strlen(text));
    (void)printf("\n");
  }
}

static void print_command(const cli_command *command)
{
  const options_usage *usage = &command->usage;

  (void)printf(".SH \"");
  for (const char *c = usage->command; *c != '\0'; ++c) {
    (void)putchar(toupper((unsigned char)*c));
  }
  (void)printf("\"\n.B unroll %s\n[OPTION]... %s\n.PP\n", usage->command, usage->operands);
  print_paragraphs(usage->purpose);
  print_options(command->table);
  if (usage->notes != NULL) {
    (void)printf(".SS Notes\n");
    print_paragraphs(usage->notes);
  }
}

static const struct {
  const char *file, *topic;
} guides[] = {
    {"install.md", "build by hand, modules, Spack, containers"},
    {"train.md", "texts, reports, given weights, the files of a run, scoring and sampling"},
    {"resume-and-slurm.md", "stop and go on, train longer, batch systems, hosts that fail"},
    {"analyse.md", "the run file in Python, PyTorch, R and Octave; export; pictures"},
    {"strategies.md", "how far gradients reach, and which back\\-propagation to take"},
    {"speed.md", "how large and how long a run will be, many ranks and hosts"},
    {"guarantees.md", "what has the same bits when; damaged files, full disks"},
    {"c-api.md", "the library from another program"},
};

void manpage_print(size_t n, const cli_command *const *commands)
{
  (void)printf(".TH UNROLL 1 \"\" \"unroll %s\" \"User Commands\"\n", UNROLL_VERSION);
  (void)printf(
      ".nh\n.ad l\n.SH NAME\nunroll \\- train recurrent\\-neural\\-network language models on CPU "
      "clusters\n.SH SYNOPSIS\n");
  for (size_t i = 0; i < n; ++i) {
    (void)printf("%s.B unroll %s\n[OPTION]... %s\n", i == 0 ? "" : ".br\n",
                 commands[i]->usage.command, commands[i]->usage.operands);
  }
  (void)printf(".SH DESCRIPTION\n"
               "Each MPI rank runs back\\-propagation through time on its share of the sequences, "
               "with OpenMP threads; weights, metrics and settings go to one HDF5 file. Start it "
               "with\n.BR mpirun (1)\nor\n.BR srun (1);\n"
               "every command also runs without them, as one rank.\n.PP\n"
               "Numbers are read as 64, 64k, 2M, 0.5 or 1e\\-3; times as 90s, 30m or 2h.\n");
  for (size_t i = 0; i < n; ++i) { print_command(commands[i]); }
  (void)printf(".SH \"EXIT STATUS\"\n%s.\n", CLI_EXIT_TEXT);
  (void)printf(".SH ENVIRONMENT\n"
               ".TP\n\\fBOMP_NUM_THREADS\\fR\nthreads of each rank; without it, as many as the "
               "cores the rank may use\n"
               ".TP\n\\fBHDF5_USE_FILE_LOCKING\\fR\nFALSE where a network file system refuses "
               "locks\n"
               ".TP\n\\fBUNROLL_ISA\\fR\navx512, avx2 or portable: kernels other than the best for "
               "this CPU\n"
               ".TP\n\\fBUNROLL_CACHES\\fR\nsizes of first\\-level data, second and third\\-level "
               "cache instead of those found, as 32K,512K,32M\n");
  (void)printf(".SH GUIDES\nIn share/doc/unroll/jobs/guides of the installed tree, jobs/guides of "
               "the sources:\n");
  for (size_t i = 0; i < sizeof guides / sizeof guides[0]; ++i) {
    (void)printf(".TP\n\\fB");
    print_roff(guides[i].file, strlen(guides[i].file));
    (void)printf("\\fR\n%s\n", guides[i].topic);
  }
  (void)printf(".SH \"SEE ALSO\"\n.BR mpirun (1),\n.BR srun (1),\n.BR h5dump (1)\n");
}
