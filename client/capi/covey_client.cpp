// The C functions: arguments checked, errors and exceptions turned into numbers. What they mean is
// in covey_client.h.

#include "covey_client.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "client/capi/embedded_client.hpp"

using covey::Error;
using covey::ErrorCode;
using covey::Result;
using covey::client::DeviceReadings;
using covey::client::EmbeddedClient;
using covey::client::LogLevel;
using covey::models::DataSet;

struct covey_client {
  std::unique_ptr<EmbeddedClient> embedded;
};

namespace {

thread_local std::string last_error;

int fail(int code, std::string_view sentence) noexcept {
  try {
    last_error = sentence;
  } catch (...) {
    last_error.clear();
    return COVEY_CLIENT_NO_MEMORY;
  }
  return code;
}

int fail(const Error& error) noexcept {
  const bool argument =
      error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kNotFound;
  return fail(argument ? COVEY_CLIENT_BAD_ARGUMENT : COVEY_CLIENT_FAILED, error.message);
}

int code_of(const Result<void>& result) noexcept {
  return result.ok() ? COVEY_CLIENT_OK : fail(result.error());
}

/// No exception crosses into C.
template <typename Body>
int guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(COVEY_CLIENT_NO_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(COVEY_CLIENT_FAILED, error.what());
  } catch (...) {
    return fail(COVEY_CLIENT_FAILED, "an unknown exception");
  }
}

/// For functions of any thread.
template <typename Body>
int on(covey_client* client, Body body) noexcept {
  if (client == nullptr) return fail(COVEY_CLIENT_BAD_ARGUMENT, "the client is null");
  return guarded([&] { return body(*client->embedded); });
}

/// For functions of one thread at a time.
template <typename Body>
int alone_on(covey_client* client, Body body) noexcept {
  return on(client, [&](EmbeddedClient& embedded) {
    if (embedded.occupied.exchange(true)) {
      return fail(COVEY_CLIENT_BUSY, "another function is at work on this client");
    }
    struct Leave {
      EmbeddedClient& embedded;
      ~Leave() { embedded.occupied = false; }
    } leave{embedded};
    return body(embedded);
  });
}

int finished(EmbeddedClient& embedded, EmbeddedClient::State state) {
  switch (state) {
    case EmbeddedClient::State::kRunning:
      return COVEY_CLIENT_OK;
    case EmbeddedClient::State::kFinished:
      return COVEY_CLIENT_FINISHED;
    case EmbeddedClient::State::kRefused:
      break;
  }
  return fail(COVEY_CLIENT_FAILED, embedded.status().finished->reason);
}

std::optional<double> known(double value) {
  return std::isnan(value) ? std::nullopt : std::optional(value);
}

std::optional<bool> known_flag(double value) {
  return std::isnan(value) ? std::nullopt : std::optional(value != 0);
}

/// Enters a condition; false if the value cannot be one.
bool enter(int condition, double value, DeviceReadings& readings) {
  const auto within = [&](double low, double high) {
    return std::isnan(value) || (value >= low && value <= high);
  };
  const auto whole = [&](auto& reading) {
    using Number = typename std::remove_reference_t<decltype(reading)>::value_type;
    reading.reset();
    if (!std::isnan(value)) reading = static_cast<Number>(value);
  };
  constexpr double kMostBytes = 0x1p62;
  switch (condition) {
    case COVEY_CLIENT_CHARGING:
      readings.charging = known_flag(value);
      return within(0, 1);
    case COVEY_CLIENT_METERED:
      readings.metered = known_flag(value);
      return within(0, 1);
    case COVEY_CLIENT_BATTERY:
      readings.battery = known(value);
      return within(0, 1);
    case COVEY_CLIENT_TEMPERATURE:
      readings.temperature_c = known(value);
      return within(-273.15, 1000);
    case COVEY_CLIENT_LOAD:
      readings.load = known(value);
      return within(0, 1e6);
    case COVEY_CLIENT_FREE_MEMORY:
      if (!within(0, kMostBytes)) return false;
      whole(readings.free_memory_bytes);
      return true;
    case COVEY_CLIENT_FREE_DISK:
      if (!within(0, kMostBytes)) return false;
      whole(readings.free_disk_bytes);
      return true;
    case COVEY_CLIENT_MINUTE_OF_DAY:
      if (!within(0, 1439)) return false;
      whole(readings.minute_of_day);
      return true;
    default:
      return false;
  }
}

/// Whether so many features fit in memory at all.
bool countable(std::size_t examples, std::size_t features) {
  return features > 0 && features <= std::numeric_limits<std::uint32_t>::max() &&
         examples <= std::numeric_limits<std::uint32_t>::max() &&
         examples <= std::numeric_limits<std::size_t>::max() / sizeof(float) / features;
}

template <typename Value, typename Make>
int set_all(covey_client* client, const Value* features, const int32_t* labels, std::size_t count,
            std::size_t size, Make make) {
  return on(client, [&](EmbeddedClient& embedded) {
    if (count == 0) return code_of(embedded.set_examples(DataSet()));
    if (features == nullptr || labels == nullptr) {
      return fail(COVEY_CLIENT_BAD_ARGUMENT, "features or labels are null");
    }
    if (!countable(count, size)) {
      return fail(COVEY_CLIENT_BAD_ARGUMENT, "no features, or more than there can be");
    }
    return code_of(embedded.set_examples(make({static_cast<std::uint32_t>(size)},
                                              std::vector<Value>(features, features + count * size),
                                              std::vector<std::int32_t>(labels, labels + count))));
  });
}

}  // namespace

extern "C" {

int covey_client_create(covey_client** client) {
  if (client == nullptr)
    return fail(COVEY_CLIENT_BAD_ARGUMENT, "the pointer for the client is null");
  *client = nullptr;
  return guarded([&] {
    auto embedded = EmbeddedClient::make();
    if (!embedded.ok()) return fail(embedded.error());
    *client = new covey_client{std::move(embedded).value()};
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_destroy(covey_client* client) {
  if (client == nullptr) return COVEY_CLIENT_OK;
  if (client->embedded->occupied.exchange(true)) {
    return fail(COVEY_CLIENT_BUSY, "another function is at work on this client");
  }
  return guarded([&] {
    delete client;
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_set_option(covey_client* client, const char* name, const char* value) {
  return alone_on(client, [&](EmbeddedClient& embedded) {
    if (name == nullptr || value == nullptr) {
      return fail(COVEY_CLIENT_BAD_ARGUMENT, "the option's name or value is null");
    }
    if (!embedded.configurable()) {
      return fail(
          COVEY_CLIENT_BAD_STATE,
          std::string(name) + ": options are set before the first example and the first step");
    }
    return code_of(embedded.set_option(name, value));
  });
}

int covey_client_on_log(covey_client* client, covey_client_log_callback callback, void* user) {
  return alone_on(client, [&](EmbeddedClient& embedded) {
    embedded.callbacks.log = nullptr;
    if (callback != nullptr) {
      embedded.callbacks.log = [=](LogLevel level, const std::string& text) {
        callback(user, static_cast<int>(level), text.c_str());
      };
    }
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_on_phase(covey_client* client, covey_client_phase_callback callback, void* user) {
  return alone_on(client, [&](EmbeddedClient& embedded) {
    embedded.callbacks.phase = nullptr;
    if (callback != nullptr) {
      embedded.callbacks.phase = [=](const std::string& phase) { callback(user, phase.c_str()); };
    }
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_on_round(covey_client* client, covey_client_round_callback callback, void* user) {
  return alone_on(client, [&](EmbeddedClient& embedded) {
    embedded.callbacks.round = nullptr;
    if (callback != nullptr) {
      embedded.callbacks.round = [=](std::uint32_t round) { callback(user, round); };
    }
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_on_finished(covey_client* client, covey_client_finished_callback callback,
                             void* user) {
  return alone_on(client, [&](EmbeddedClient& embedded) {
    embedded.callbacks.finished = nullptr;
    if (callback != nullptr) {
      embedded.callbacks.finished = [=](bool ok, const std::string& reason) {
        callback(user, ok ? 1 : 0, reason.c_str());
      };
    }
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_add_example(covey_client* client, const float* features, size_t num_features,
                             int32_t label) {
  return on(client, [&](EmbeddedClient& embedded) {
    if (features == nullptr) return fail(COVEY_CLIENT_BAD_ARGUMENT, "the features are null");
    if (!embedded.takes_examples()) {
      return fail(COVEY_CLIENT_BAD_STATE, "examples cannot be added: the option data names files");
    }
    return code_of(embedded.add({features, num_features}, label));
  });
}

int covey_client_add_example_bytes(covey_client* client, const uint8_t* features,
                                   size_t num_features, int32_t label) {
  return on(client, [&](EmbeddedClient& embedded) {
    if (features == nullptr) return fail(COVEY_CLIENT_BAD_ARGUMENT, "the features are null");
    if (!embedded.takes_examples()) {
      return fail(COVEY_CLIENT_BAD_STATE, "examples cannot be added: the option data names files");
    }
    return code_of(embedded.add_bytes({features, num_features}, label));
  });
}

int covey_client_set_examples(covey_client* client, const float* features, const int32_t* labels,
                              size_t num_examples, size_t num_features, uint32_t classes) {
  return set_all(client, features, labels, num_examples, num_features,
                 [&](std::vector<std::uint32_t> shape, auto values, auto classes_of) {
                   return DataSet::from_floats(std::move(shape), std::move(values),
                                               std::move(classes_of), classes);
                 });
}

int covey_client_set_examples_bytes(covey_client* client, const uint8_t* features,
                                    const int32_t* labels, size_t num_examples, size_t num_features,
                                    uint32_t classes) {
  return set_all(client, features, labels, num_examples, num_features,
                 [&](std::vector<std::uint32_t> shape, auto values, auto classes_of) {
                   return DataSet::from_bytes(std::move(shape), std::move(values), 1.0f / 255,
                                              std::move(classes_of), classes);
                 });
}

int covey_client_clear_examples(covey_client* client) {
  return on(client, [](EmbeddedClient& embedded) { return code_of(embedded.clear_examples()); });
}

int covey_client_set_condition(covey_client* client, int condition, double value) {
  return on(client, [&](EmbeddedClient& embedded) {
    DeviceReadings scratch;
    if (!enter(condition, value, scratch)) {
      return fail(COVEY_CLIENT_BAD_ARGUMENT,
                  "there is no such condition, or it cannot have this value");
    }
    embedded.change_readings([&](DeviceReadings& readings) { enter(condition, value, readings); });
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

int covey_client_step(covey_client* client, uint32_t* next_ms) {
  return alone_on(client, [&](EmbeddedClient& embedded) {
    std::uint32_t next = 0;
    const auto state = embedded.step(next);
    if (next_ms != nullptr) *next_ms = next;
    return state.ok() ? finished(embedded, *state) : fail(state.error());
  });
}

int covey_client_run(covey_client* client) {
  return alone_on(client, [](EmbeddedClient& embedded) {
    const auto state = embedded.run();
    return state.ok() ? finished(embedded, *state) : fail(state.error());
  });
}

int covey_client_stop(covey_client* client) {
  // Nothing here may lock or allocate: it may be a signal handler's.
  if (client == nullptr) return COVEY_CLIENT_BAD_ARGUMENT;
  client->embedded->stop();
  return COVEY_CLIENT_OK;
}

int covey_client_get_status(covey_client* client, covey_client_status* status) {
  return on(client, [&](EmbeddedClient& embedded) {
    if (status == nullptr || status->size != sizeof(covey_client_status)) {
      return fail(COVEY_CLIENT_BAD_ARGUMENT, "the status is null, or its size is not set");
    }
    const EmbeddedClient::Status now = embedded.status();
    covey_client_status out{};
    out.size = sizeof(out);
    out.bytes_sent = now.bytes_sent;
    out.bytes_received = now.bytes_received;
    out.num_examples = now.num_examples;
    out.rounds_accepted = now.rounds_accepted;
    out.finished = !now.finished ? 0 : now.finished->ok ? 1 : -1;
    now.phase.copy(out.phase, sizeof(out.phase) - 1);
    *status = out;
    return static_cast<int>(COVEY_CLIENT_OK);
  });
}

const char* covey_client_last_error(void) { return last_error.c_str(); }

const char* covey_client_version(void) { return COVEY_VERSION; }

int covey_client_abi(void) { return COVEY_CLIENT_ABI; }

}  // extern "C"
