/* covey_client.h: a federated learning device inside another program: a phone app (JNI, Swift), a service, an
 * embedded host. C99, and C++ as it is.
 *
 *   covey_client *client;
 *   covey_client_create(&client);
 *   covey_client_set_option(client, "kit", "/data/kit");        certificate, key, and where the server is
 *   covey_client_set_option(client, "state", "/data/covey");    what survives a restart
 *   covey_client_add_example(client, features, 16, label);      ... as they come, before and while it runs
 *   covey_client_set_condition(client, COVEY_CLIENT_CHARGING, 1);
 *   covey_client_run(client);                                   or covey_client_step in a loop of the host's
 *   covey_client_destroy(client);
 *
 * Examples never leave the process; the server sees updates of the model.
 *
 * THREADS. A function marked [any] may be called from any thread at any time between create and destroy, also from
 * within a callback. One marked [one] is for one thread at a time (not necessarily the same); while one of them runs,
 * another answers COVEY_CLIENT_BUSY and does nothing. Callbacks are called on the thread that is inside
 * covey_client_step or covey_client_run, and nowhere else; a text that they are given is valid until they return.
 * Training runs on a thread of the client's own at low priority.
 *
 * ERRORS. Functions return 0 or above when they did what they were asked for, and below 0 when not;
 * covey_client_last_error then has a sentence. A null client or pointer is COVEY_CLIENT_BAD_ARGUMENT. Nothing is
 * thrown. Using a client after covey_client_destroy is undefined, as with free().
 *
 * STABILITY. Within one COVEY_CLIENT_ABI functions are added and none changes; structures begin with their size, so
 * that they may grow; numbers of enumerations keep their meaning, and a host ignores those it does not know.
 *
 * PROCESS. SIGPIPE is ignored from the first client on, unless the process handles it. No other signal is touched, no
 * child process is made, standard input, output and error are left alone.
 */
#ifndef COVEY_CLIENT_H
#define COVEY_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define COVEY_CLIENT_API __attribute__((visibility("default")))
#else
#define COVEY_CLIENT_API
#endif

/* Of this header; the library's is covey_client_abi(). The name libcovey_client.so.N has the same N. */
#define COVEY_CLIENT_ABI 0

typedef struct covey_client covey_client;

/* What functions return. */
enum {
  COVEY_CLIENT_OK = 0,
  COVEY_CLIENT_FINISHED = 1,      /* nothing more will happen: the run is over, or a stop was asked for */
  COVEY_CLIENT_BAD_ARGUMENT = -1, /* an argument, option, file or example is wrong */
  COVEY_CLIENT_BAD_STATE = -2,    /* not at this time: an option after the start, say */
  COVEY_CLIENT_BUSY = -3,         /* another [one] function is at work */
  COVEY_CLIENT_FAILED = -4,       /* the disk, the network or the server says no */
  COVEY_CLIENT_NO_MEMORY = -5
};

/* Levels of covey_client_log_callback, those of syslog(3). */
enum {
  COVEY_CLIENT_LOG_ERROR = 3,
  COVEY_CLIENT_LOG_WARNING = 4,
  COVEY_CLIENT_LOG_INFO = 6,
  COVEY_CLIENT_LOG_DEBUG = 7
};

/* What the host knows of the device, for covey_client_set_condition. */
enum {
  COVEY_CLIENT_CHARGING = 1,         /* 0 or 1 */
  COVEY_CLIENT_BATTERY = 2,          /* share that is left, 0 to 1 */
  COVEY_CLIENT_METERED = 3,          /* 1: the network costs by the byte; 0: it does not */
  COVEY_CLIENT_TEMPERATURE = 4,      /* degrees Celsius, of the hottest part that matters */
  COVEY_CLIENT_LOAD = 5,             /* of others' work, per core */
  COVEY_CLIENT_FREE_MEMORY = 6,      /* bytes */
  COVEY_CLIENT_FREE_DISK = 7,        /* bytes, where the state lies */
  COVEY_CLIENT_MINUTE_OF_DAY = 8     /* local time, 0 to 1439 */
};

/* Makes a client that does nothing yet. [any] */
COVEY_CLIENT_API int covey_client_create(covey_client **client);

/* Ends everything at once (covey_client_stop and a step or run until it is finished end it politely) and frees the
 * client. Null is allowed. BUSY inside a callback or while another [one] function is at work: then it was not
 * destroyed. Waits for the step of training that is being computed. [one] */
COVEY_CLIENT_API int covey_client_destroy(covey_client *client);

/* Sets an option by name, as a text; names and values are those of `covey-client --help` and its configuration file:
 *   kit               directory that `covey provision` made; the only option that is needed
 *   state             directory for what survives the process; none (the default): nothing does
 *   server            host:port in place of the kit's
 *   device-class, max-memory, max-state, nice, ionice, only-when-idle, require-charging, min-battery,
 *   require-unmetered, max-temperature, max-load, min-free-memory, min-free-disk, hours, require-secure-aggregation,
 *   min-corruption, min-sum, hide-num-examples, once ("true" or "false" for those that are yes or no)
 *   data              where examples lie: csv:FILE, idx:DIR, directory:DIR, stream:DIR[,key=value]...
 * and beside these
 *   stream            without data: how examples that the host adds are kept, key=value,key=value... of a stream:
 *                     keep=window|reservoir, max-examples=N, max-bytes=N[KMG], only-new=yes|no, replay=SHARE,
 *                     min-examples=N, element=float|byte, shape=HxWxC, classes=N, seed=N. They lie in state/examples.
 *   conditions        host (the default): as covey_client_set_condition says; system: read from Linux every ten
 *                     seconds where the host says nothing
 * BAD_ARGUMENT for a name that there is not, or a value that it does not take. BAD_STATE once an example was added or
 * a step taken. [one] */
COVEY_CLIENT_API int covey_client_set_option(covey_client *client, const char *name, const char *value);

typedef void (*covey_client_log_callback)(void *user, int level, const char *text);
typedef void (*covey_client_phase_callback)(void *user, const char *phase);
typedef void (*covey_client_round_callback)(void *user, uint32_t round);
typedef void (*covey_client_finished_callback)(void *user, int ok, const char *reason);

/* Callbacks; null for none. `user` is handed back. Set them before the first step. [one]
 *   log       what happens, in words
 *   phase     what the client does now, in a word: "disconnected", "connecting", "waiting", "downloading",
 *             "training", "uploading", "pausing", "resting" (a condition forbids it), ... there may be new ones
 *   round     an update of this device was counted in this round
 *   finished  the last one: ok is 1 when the run is over or a stop was asked for, 0 when the server refused */
COVEY_CLIENT_API int covey_client_on_log(covey_client *client, covey_client_log_callback callback, void *user);
COVEY_CLIENT_API int covey_client_on_phase(covey_client *client, covey_client_phase_callback callback, void *user);
COVEY_CLIENT_API int covey_client_on_round(covey_client *client, covey_client_round_callback callback, void *user);
COVEY_CLIENT_API int covey_client_on_finished(covey_client *client, covey_client_finished_callback callback,
                                              void *user);

/* Adds an example to the stream: num_features finite numbers, the same count each time, and a class from 0. It is
 * copied, and on disk (in the system's cache) when this returns, where there is a state directory. A training at
 * hand does not see it. BAD_ARGUMENT for a wrong example; BAD_STATE where the option data names files; FAILED when the
 * disk is full. [any] */
COVEY_CLIENT_API int covey_client_add_example(covey_client *client, const float *features, size_t num_features,
                                              int32_t label);

/* The same for images and the like: a feature's value is byte / 255. For streams with element=byte. [any] */
COVEY_CLIENT_API int covey_client_add_example_bytes(covey_client *client, const uint8_t *features,
                                                    size_t num_features, int32_t label);

/* The device's examples are these and no others, until another call: features [num_examples x num_features], labels
 * [num_examples] in [0, classes). Copied, in memory only, whole or not at all. num_examples 0: back to the stream or
 * the files. [any] */
COVEY_CLIENT_API int covey_client_set_examples(covey_client *client, const float *features, const int32_t *labels,
                                               size_t num_examples, size_t num_features, uint32_t classes);
COVEY_CLIENT_API int covey_client_set_examples_bytes(covey_client *client, const uint8_t *features,
                                                     const int32_t *labels, size_t num_examples,
                                                     size_t num_features, uint32_t classes);

/* Forgets all examples of the stream, on disk too, and what set_examples gave. [any] */
COVEY_CLIENT_API int covey_client_clear_examples(covey_client *client);

/* Tells a condition; NaN: unknown (again). Rules (require-charging, max-temperature, ...) are held against it: a
 * training that is under way rests, down to the single step, and goes on later. [any] */
COVEY_CLIENT_API int covey_client_set_condition(covey_client *client, int condition, double value);

/* Does what is due, without waiting: a few milliseconds at most, more where many examples are read from files. The
 * first call connects. *next_ms (if not null): in how many milliseconds to call again; calling earlier does no harm,
 * later makes it slower. OK, FINISHED, or below 0: it cannot begin (option, kit, state directory: mend it, call
 * again), or the server refused (FAILED, again at every further call). [one] */
COVEY_CLIENT_API int covey_client_step(covey_client *client, uint32_t *next_ms);

/* The same until it is finished; sleeps while there is nothing to do, which costs less than steps. FINISHED, or below
 * 0 as covey_client_step. [one] */
COVEY_CLIENT_API int covey_client_run(covey_client *client);

/* Asks for an end: the task at hand is handed back, the connection closed; step and run then answer FINISHED, within
 * about two seconds. Returns at once. [any], and async-signal-safe. */
COVEY_CLIENT_API int covey_client_stop(covey_client *client);

/* What a client did so far. */
typedef struct covey_client_status {
  size_t size;               /* set by the caller: sizeof(covey_client_status) */
  uint64_t bytes_sent;       /* over the network, as of the last change of phase */
  uint64_t bytes_received;
  uint64_t num_examples;     /* to train on now */
  uint32_t rounds_accepted;  /* updates that were counted, by this client */
  int32_t finished;          /* 0: not yet; 1: well; -1: the server refused */
  char phase[32];            /* as the phase callback; "" before the first step */
} covey_client_status;

/* Fills *status. BAD_ARGUMENT if status->size is not that of a version of this structure. [any] */
COVEY_CLIENT_API int covey_client_get_status(covey_client *client, covey_client_status *status);

/* What went wrong in the last function that failed on the calling thread, as a sentence in UTF-8; "" if none did. Valid
 * until the next one fails on this thread. Never null. [any] */
COVEY_CLIENT_API const char *covey_client_last_error(void);

/* "0.1.0", and the COVEY_CLIENT_ABI that the library was built with. [any] */
COVEY_CLIENT_API const char *covey_client_version(void);
COVEY_CLIENT_API int covey_client_abi(void);

#ifdef __cplusplus
}
#endif

#endif /* COVEY_CLIENT_H */
