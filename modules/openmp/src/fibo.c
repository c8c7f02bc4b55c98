/* fibo N: the Nth Fibonacci number by its definition, spread over OpenMP threads.
 *
 * The naive recursion is meant: fib(N) costs about 1.618^N additions, so that one small number gives a processor
 * as much work as one likes. Work becomes tasks down to a cut-off and plain calls below it: a task costs far more
 * than an addition, so a task for each call would spend the time on book-keeping.
 *
 * strtoul and scanf are avoided: both accept what isn't a number of ours ("-1", "40abc", nothing at all), and newer C
 * libraries bind them to symbols that an older image doesn't have.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <omp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERSION "1.0"
#define LARGEST_N 93 /* fib(93) = 12200160415121876738 is the last that fits 64 bits */
#define DEFAULT_CUTOFF 20 /* measured with benches/fibo.py: from about 18 to 24 it makes no difference */
#define LARGEST_THREADS 1024
#define TEXT_(value) #value
#define TEXT(value) TEXT_(value)
#define LONGEST_INPUT 32

enum status { DONE = 0, FAILED = 1, USAGE = 2 };

struct request {
    unsigned n;
    unsigned cutoff;
    unsigned threads; /* 0: as OpenMP decides (OMP_NUM_THREADS, else one for each processor) */
    bool quiet;
};

static const char help[] =
    "usage: fibo [--threads T] [--cutoff C] [--quiet] [N]\n"
    "\n"
    "Computes the Nth Fibonacci number with OpenMP tasks and prints it with the time.\n"
    "N is a whole number from 0 to 93; without N it is read from standard input.\n"
    "\n"
    "  -t, --threads T  how many threads (1 to 1024); default: OMP_NUM_THREADS, else one a processor\n"
    "  -c, --cutoff C   fib(C) and smaller are computed without tasks (1 to 93); default: " TEXT(DEFAULT_CUTOFF) "\n"
    "  -q, --quiet      print the number alone\n"
    "  -h, --help       this text\n"
    "      --version    the version\n"
    "\n"
    "This is a load for processors, not a good way to get Fibonacci numbers: it follows the naive\n"
    "recursion on purpose. Each step of N takes 1.6 times as long: where 40 takes a second, 50 takes two\n"
    "minutes, 60 four hours and 80 seven years.\n"
    "\n"
    "Exit status: 0 done, 1 the result couldn't be written, 2 wrong usage or input.\n";

/* The status to end with: FAILED, with the reason on standard error, when the output isn't whole (a full disk). */
static enum status written(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return DONE;
    fprintf(stderr, "fibo: the result can't be written: %s\n", strerror(errno));
    return FAILED;
}

static _Noreturn void refuse(const char *what, const char *value)
{
    fprintf(stderr, value ? "fibo: %s: '%s'\n" : "fibo: %s\n", what, value);
    fputs("Try 'fibo --help'.\n", stderr);
    exit(USAGE);
}

/* The whole number that `text` is, all of it, from `least` to `most`; ends the program if it is anything else. */
static unsigned number(const char *what, const char *text, unsigned least, unsigned most)
{
    char message[80];
    unsigned value = 0;
    const char *at = text;

    while (*at >= '0' && *at <= '9' && value <= most)
        value = value * 10 + (unsigned)(*at++ - '0');
    if (at != text && value > most)
        at += strspn(at, "0123456789");
    if (at == text || *at != '\0') {
        snprintf(message, sizeof message, "%s must be a whole number from %u to %u", what, least, most);
        refuse(message, text);
    }
    if (value < least || value > most) {
        snprintf(message, sizeof message, "%s must be from %u to %u", what, least, most);
        refuse(message, text);
    }
    return value;
}

static bool is_space(int byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* N from standard input: one line on a terminal, else all of the input, with white space around it. */
static unsigned number_from_input(void)
{
    bool terminal = isatty(STDIN_FILENO), ended = false;
    char text[LONGEST_INPUT + 1];
    size_t length = 0;
    int byte;

    if (terminal)
        fputs("N: ", stderr);
    while ((byte = getchar()) != EOF && !(terminal && byte == '\n')) {
        if (is_space(byte)) {
            ended = length > 0;
            continue;
        }
        if (ended || byte == '\0' || length == LONGEST_INPUT)
            refuse("standard input must hold one whole number and nothing else", NULL);
        text[length++] = (char)byte;
    }
    if (ferror(stdin))
        refuse("there is no N, and standard input can't be read", strerror(errno));
    text[length] = '\0';
    if (!length)
        refuse("there is no N, neither as argument nor on standard input", NULL);
    return number("N", text, 0, LARGEST_N);
}

static struct request parse(int argc, char **argv)
{
    enum { OPTION_VERSION = 256 };
    static const struct option options[] = {
        {"threads", required_argument, NULL, 't'}, {"cutoff", required_argument, NULL, 'c'},
        {"quiet", no_argument, NULL, 'q'},         {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPTION_VERSION}, {NULL, 0, NULL, 0},
    };
    struct request request = {.cutoff = DEFAULT_CUTOFF};
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, ":t:c:qh", options, NULL)) != -1) {
        switch (option) {
        case 't':
            request.threads = number("--threads", optarg, 1, LARGEST_THREADS);
            break;
        case 'c':
            request.cutoff = number("--cutoff", optarg, 1, LARGEST_N);
            break;
        case 'q':
            request.quiet = true;
            break;
        case 'h':
            fputs(help, stdout);
            exit(written());
        case OPTION_VERSION:
            puts("fibo " VERSION);
            exit(written());
        case ':':
            refuse("this option needs a value", argv[optind - 1]);
        default:
            if (optopt >= '0' && optopt <= '9')
                refuse("N can't be negative", NULL);
            refuse("there is no such option, or it takes no value", argv[optind - 1]);
        }
    }
    if (argc - optind > 1)
        refuse("only one N, please; unexpected", argv[optind + 1]);
    request.n = optind < argc ? number("N", argv[optind], 0, LARGEST_N) : number_from_input();
    return request;
}

static uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t fib_tasks(unsigned n, unsigned cutoff)
{
    uint64_t left, right;

    if (n <= cutoff)
        return fib(n);
#pragma omp task default(none) shared(left) firstprivate(n, cutoff)
    left = fib_tasks(n - 1, cutoff);
    right = fib_tasks(n - 2, cutoff);
#pragma omp taskwait
    return left + right;
}

int main(int argc, char **argv)
{
    struct request request = parse(argc, argv);
    uint64_t result = 0;
    int threads = 1;
    double seconds;

    if (request.threads)
        omp_set_num_threads((int)request.threads);
    seconds = omp_get_wtime();
#pragma omp parallel default(none) shared(request, result, threads)
#pragma omp single
    {
        threads = omp_get_num_threads();
        result = fib_tasks(request.n, request.cutoff);
    }
    seconds = omp_get_wtime() - seconds;

    if (request.quiet)
        printf("%" PRIu64 "\n", result);
    else
        printf("fibo(%u) = %" PRIu64 "\ntime: %.3f s, threads: %d\n", request.n, result, seconds, threads);
    return written();
}
