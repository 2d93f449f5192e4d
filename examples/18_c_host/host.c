/* A program in C that is a device of a federated run: a motion sensor that learns to tell resting, walking and running
 * apart, together with others, while its readings stay where they are.
 *
 *   covey provision create --out kits --devices 4 --address 127.0.0.1:7070
 *   covey server examples/18_c_host/run.toml --kit kits/server --listen 127.0.0.1:7070 &
 *   make -C examples/18_c_host            (with covey installed: pkg-config finds covey-client)
 *   for i in 0 1 2 3; do examples/18_c_host/host kits/device-000$i & done; wait
 *
 * The host has a loop of its own: it reads its sensor, tells the client how its device is, and calls
 * covey_client_step when that is due. Ctrl-C ends it politely.
 */
#define _POSIX_C_SOURCE 200809L

#include <covey_client.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { kFeatures = 6, kClasses = 3, kExamplesAtStart = 300 };

static covey_client *client;

/* covey_client_stop is the one function that a signal handler may call. */
static void on_signal(int number) {
  (void)number;
  covey_client_stop(client);
}

static void on_log(void *user, int level, const char *text) {
  if (level <= COVEY_CLIENT_LOG_INFO) fprintf(stderr, "%s: %s\n", (const char *)user, text);
}

static void on_round(void *user, uint32_t round) {
  printf("%s: update counted, round %u\n", (const char *)user, (unsigned)round);
}

static void on_finished(void *user, int ok, const char *reason) {
  printf("%s: %s: %s\n", (const char *)user, ok ? "finished" : "failed", reason);
}

/* In [0, 1): xorshift64*, so that runs repeat (Marsaglia 2003, Vigna 2016). */
static double uniform(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return (double)((*state * UINT64_C(2685821657736338717)) >> 11) / 9007199254740992.0;
}

static double noise(uint64_t *state) {
  const double pi = 3.14159265358979323846;
  return sqrt(-2 * log(1 - uniform(state))) * cos(2 * pi * uniform(state));
}

/* What a sensor gives for two seconds: mean and spread of the acceleration on three axes. A person's gait differs a
 * little from the next one's. */
static int32_t read_sensor(uint64_t *state, double gait, float features[kFeatures]) {
  static const double kSpread[kClasses] = {0.05, 0.5, 1.6};
  const int32_t movement = (int32_t)(uniform(state) * kClasses);
  for (int axis = 0; axis < 3; ++axis) {
    features[axis] = (float)(0.3 * noise(state));
    features[3 + axis] = (float)fabs(kSpread[movement] * gait + 0.15 * noise(state));
  }
  return movement;
}

static int failed(const char *doing) {
  fprintf(stderr, "%s: %s\n", doing, covey_client_last_error());
  return 1;
}

/* 0, or 1 after a sentence. */
static int configure(char **arguments, int count, char *name) {
  if (covey_client_create(&client) < 0) return failed("create");
  if (covey_client_set_option(client, "kit", name) < 0) return failed("kit");
  /* Keep a fair sample of all that was ever measured, in at most a megabyte. */
  if (covey_client_set_option(client, "stream", "keep=reservoir,max-examples=2000,max-bytes=1M,classes=3") < 0 ||
      covey_client_set_option(client, "require-charging", "true") < 0) {
    return failed("options");
  }
  for (int i = 2; i + 1 < count; i += 2) { /* name value pairs, as covey_client_set_option takes them */
    if (covey_client_set_option(client, arguments[i], arguments[i + 1]) < 0) return failed(arguments[i]);
  }
  covey_client_on_log(client, on_log, name);
  covey_client_on_round(client, on_round, name);
  covey_client_on_finished(client, on_finished, name);
  return 0;
}

static int add_reading(uint64_t *state, double gait) {
  float features[kFeatures];
  const int32_t movement = read_sensor(state, gait, features);
  return covey_client_add_example(client, features, kFeatures, movement) < 0 ? failed("add_example") : 0;
}

/* The host's own loop: a reading now and then, and the client when it is due. */
static int take_part(uint64_t *state, double gait) {
  for (;;) {
    uint32_t next_ms = 0;
    const int result = covey_client_step(client, &next_ms);
    if (result == COVEY_CLIENT_FINISHED) return 0;
    if (result < 0) return failed("step");
    if (add_reading(state, gait) != 0) return 1;
    const struct timespec pause = {(time_t)(next_ms / 1000), (long)(next_ms % 1000) * 1000000};
    nanosleep(&pause, NULL); /* a signal ends it early */
  }
}

int main(int argc, char **argv) {
  if (argc < 2 || argc % 2 != 0) {
    fprintf(stderr, "usage: %s KIT [OPTION VALUE]...\n", argv[0]);
    return 2;
  }
  int code = configure(argv, argc, argv[1]);
  if (code == 0) {
    struct sigaction action = {0};
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    uint64_t state = 88172645463325252u;
    for (const char *c = argv[1]; *c != 0; ++c) state = state * 31 + (unsigned char)*c; /* a device of its own */
    const double gait = 0.8 + 0.4 * uniform(&state);
    for (int i = 0; i < kExamplesAtStart && code == 0; ++i) code = add_reading(&state, gait);
    covey_client_set_condition(client, COVEY_CLIENT_CHARGING, 1);
    covey_client_set_condition(client, COVEY_CLIENT_METERED, 0);
    if (code == 0) code = take_part(&state, gait);

    covey_client_status status = {.size = sizeof status};
    if (covey_client_get_status(client, &status) == COVEY_CLIENT_OK) {
      printf("%s: %u updates counted, %llu examples, %llu bytes sent, %llu received\n", argv[1],
             (unsigned)status.rounds_accepted, (unsigned long long)status.num_examples,
             (unsigned long long)status.bytes_sent, (unsigned long long)status.bytes_received);
    }
  }
  covey_client_destroy(client);
  return code;
}
