/* fibo-mpi N: the Nth Fibonacci number by its definition, spread over MPI ranks and, inside each, over OpenMP threads.
 *
 * The top of the recursion's tree is unfolded until there are many more leaves than ranks. Every rank unfolds the same
 * tree and deals out the same leaves, the largest first, each to the rank that has the least to do; so nothing is sent
 * before the sum at the end, and a slow network costs nothing.
 */
#include <inttypes.h>
#include <mpi.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define LARGEST_N 93 /* fib(93) is the last that fits 64 bits */
#define CUTOFF 20    /* as in fibo: smaller ones are no task of their own */
#define LEAVES_PER_RANK 32

enum { DONE = 0, USAGE = 2 };

static uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t fib_tasks(unsigned n)
{
    uint64_t left, right;

    if (n <= CUTOFF)
        return fib(n);
#pragma omp task default(none) shared(left) firstprivate(n)
    left = fib_tasks(n - 1);
    right = fib_tasks(n - 2);
#pragma omp taskwait
    return left + right;
}

/* The whole number from 0 to LARGEST_N that `text` is, or -1. */
static int number(const char *text)
{
    int value = 0;

    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        value = value * 10 + (*text - '0');
        if (value > LARGEST_N)
            return -1;
    }
    return value;
}

/* How often each fib(k) stands at the bottom of fib(n)'s tree when the largest are unfolded until there are `wanted`. */
static void unfold(unsigned n, uint64_t wanted, uint64_t count[LARGEST_N + 1])
{
    uint64_t leaves = 1;
    unsigned largest = n;

    count[n] = 1;
    while (leaves < wanted && largest > CUTOFF) {
        count[largest - 1] += count[largest];
        count[largest - 2] += count[largest];
        leaves += count[largest];
        count[largest] = 0;
        largest--;
    }
}

/* The rank that has the least to do. */
static int idlest(const double *load, int ranks)
{
    int best = 0;

    for (int rank = 1; rank < ranks; rank++)
        if (load[rank] < load[best])
            best = rank;
    return best;
}

/* How many of each fib(k) are this rank's. */
static void deal(unsigned n, int rank, int ranks, const uint64_t count[], uint64_t mine[])
{
    double *load = calloc((size_t)ranks, sizeof *load);
    double cost[LARGEST_N + 1] = {1, 1};

    if (!load) {
        fputs("fibo-mpi: out of memory\n", stderr);
        MPI_Abort(MPI_COMM_WORLD, 1);
        return;
    }
    for (unsigned k = 2; k <= n; k++)
        cost[k] = cost[k - 1] + cost[k - 2];
    for (unsigned k = n + 1; k-- > 0;)
        for (uint64_t leaf = 0; leaf < count[k]; leaf++) {
            int to = idlest(load, ranks);

            load[to] += cost[k];
            if (to == rank)
                mine[k]++;
        }
    free(load);
}

static uint64_t compute(unsigned n, const uint64_t mine[], int *threads)
{
    uint64_t sum = 0;

#pragma omp parallel default(none) shared(n, mine, sum, threads)
#pragma omp single
    {
        *threads = omp_get_num_threads();
        for (unsigned k = 0; k <= n; k++)
            for (uint64_t leaf = 0; leaf < mine[k]; leaf++) {
#pragma omp task default(none) shared(sum) firstprivate(k)
                {
                    uint64_t part = fib_tasks(k);
#pragma omp atomic
                    sum += part;
                }
            }
    }
    return sum;
}

/* One line of standard output for each rank, in their order. */
static void tell(int rank, int ranks, double seconds, int threads)
{
    char host[MPI_MAX_PROCESSOR_NAME] = "";
    char line[MPI_MAX_PROCESSOR_NAME + 80] = "";
    int length;

    MPI_Get_processor_name(host, &length);
    snprintf(line, sizeof line, "rank %d on %s: %.3f s, %d threads", rank, host, seconds, threads);
    if (rank > 0) {
        MPI_Send(line, sizeof line, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
        return;
    }
    puts(line);
    for (int other = 1; other < ranks; other++) {
        MPI_Recv(line, sizeof line, MPI_CHAR, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        puts(line);
    }
}

int main(int argc, char **argv)
{
    uint64_t count[LARGEST_N + 1] = {0}, mine[LARGEST_N + 1] = {0}, part, sum = 0;
    int rank, ranks, given, threads = 1, n;
    double began, own;

    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &given);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    n = argc == 2 ? number(argv[1]) : -1;
    if (n < 0) {
        if (rank == 0)
            fputs("usage: fibo-mpi N, a whole number from 0 to 93\n", stderr);
        MPI_Finalize();
        return USAGE;
    }
    MPI_Barrier(MPI_COMM_WORLD);
    began = MPI_Wtime();
    unfold((unsigned)n, (uint64_t)ranks * LEAVES_PER_RANK, count);
    deal((unsigned)n, rank, ranks, count, mine);
    part = compute((unsigned)n, mine, &threads);
    own = MPI_Wtime() - began;
    MPI_Reduce(&part, &sum, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0)
        printf("fibo(%d) = %" PRIu64 "\ntime: %.3f s, ranks: %d\n", n, sum, MPI_Wtime() - began, ranks);
    tell(rank, ranks, own, threads);
    MPI_Finalize();
    return DONE;
}
