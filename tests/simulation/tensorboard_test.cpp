#include <unistd.h>

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/simulation/tensorboard.hpp>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

using namespace covey;
using namespace covey::simulation;

namespace {

/// A reader of its own, after TensorFlow's description of the format: checks every CRC on the way.
struct Cursor {
  std::string_view bytes;
  std::string_view take(std::size_t count) {
    REQUIRE(bytes.size() >= count);
    const auto taken = bytes.substr(0, count);
    bytes.remove_prefix(count);
    return taken;
  }
  std::uint64_t fixed(std::size_t count) {
    std::uint64_t value = 0;
    const auto taken = take(count);
    for (std::size_t i = count; i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(taken[i]);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  }
};

std::uint32_t masked_crc(std::string_view data) {
  const std::uint32_t crc = crc32c(data);
  return std::rotr(crc, 15) + 0xA282EAD8u;
}

std::vector<std::string_view> records_of(std::string_view file) {
  std::vector<std::string_view> records;
  Cursor cursor{file};
  while (!cursor.bytes.empty()) {
    const std::string_view length = cursor.take(8);
    REQUIRE(cursor.fixed(4) == masked_crc(length));
    const std::string_view data = cursor.take(Cursor{length}.fixed(8));
    REQUIRE(cursor.fixed(4) == masked_crc(data));
    records.push_back(data);
  }
  return records;
}

struct Event {
  double wall_time = 0;
  std::uint64_t step = 0;
  std::string version;
  std::map<std::string, float> scalars;
};

void read_value(std::string_view bytes, Event& event) {
  Cursor cursor{bytes};
  std::string tag;
  while (!cursor.bytes.empty()) {
    const auto key = cursor.varint();
    if (key == (1 << 3 | 2)) {
      tag = cursor.take(cursor.varint());
    } else {
      REQUIRE(key == (2 << 3 | 5));
      event.scalars[tag] = std::bit_cast<float>(static_cast<std::uint32_t>(cursor.fixed(4)));
    }
  }
}

Event read_event(std::string_view bytes) {
  Event event;
  Cursor cursor{bytes};
  while (!cursor.bytes.empty()) {
    switch (cursor.varint()) {
      case 1 << 3 | 1:
        event.wall_time = std::bit_cast<double>(cursor.fixed(8));
        break;
      case 2 << 3 | 0:
        event.step = cursor.varint();
        break;
      case 3 << 3 | 2:
        event.version = cursor.take(cursor.varint());
        break;
      case 5 << 3 | 2: {
        Cursor summary{cursor.take(cursor.varint())};
        while (!summary.bytes.empty()) {
          REQUIRE(summary.varint() == (1 << 3 | 2));
          read_value(summary.take(summary.varint()), event);
        }
        break;
      }
      default:
        FAIL("a field that Event does not have");
    }
  }
  return event;
}

std::vector<Event> events_of(const std::vector<RoundMetrics>& rounds, double start_s) {
  const auto path =
      std::filesystem::temp_directory_path() / ("covey-events-" + std::to_string(getpid()));
  {
    auto file = EventFile::create(path, start_s);
    REQUIRE(file.ok());
    for (const RoundMetrics& metrics : rounds) REQUIRE(file->append(metrics).ok());
  }
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  std::filesystem::remove(path);
  std::vector<Event> events;
  const std::string text = content.str();
  for (const std::string_view record : records_of(text)) events.push_back(read_event(record));
  return events;
}

}  // namespace

TEST_CASE("CRC-32C of known bytes is the known one") {
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  CHECK(crc32c("123456789") == 0xE3069283);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AA);
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43);
  CHECK(crc32c("") == 0);
}

TEST_CASE("a record is length, masked CRC, data and masked CRC, byte by byte") {
  // The first record of any file of TensorBoard's own writer has the length 24 = 0x18, whose masked
  // CRC is a3 7f 4b 22; those files begin with these bytes.
  const std::string record = tfrecord(std::string(24, 'x'));
  REQUIRE(record.size() == 8 + 4 + 24 + 4);
  CHECK(record.substr(0, 12) == std::string("\x18\0\0\0\0\0\0\0\xA3\x7F\x4B\x22", 12));
  CHECK(record.substr(12, 24) == std::string(24, 'x'));
}

TEST_CASE("an events file begins with its version and has a scalar for every figure of a round") {
  RoundMetrics metrics;
  metrics.round = RoundNumber{300};  // two bytes of varint
  metrics.ended = Time(from_seconds(7200));
  metrics.accepted = 5;
  metrics.late = 2;
  metrics.train_loss = 0.25;
  metrics.accuracy = 0.75;
  metrics.loss = 0.5;
  metrics.bytes_up = 1 << 20;
  metrics.epsilon = 1.5;
  metrics.wall_s = 12.5;
  metrics.energy_j = 64;
  metrics.devices = FairnessFigures{10, 80, 40, 99, 200};
  const auto events = events_of({metrics}, 1.7e9);
  REQUIRE(events.size() == 2);
  CHECK(events[0].version == "brain.Event:2");
  CHECK(events[0].wall_time == 1.7e9);
  CHECK(events[1].step == 300);
  CHECK(events[1].wall_time == 1.7e9 + 12.5);
  const auto& scalars = events[1].scalars;
  CHECK(scalars.at("accuracy") == 0.75f);
  CHECK(scalars.at("loss") == 0.5f);
  CHECK(scalars.at("train_loss") == 0.25f);
  CHECK(scalars.at("clients/accepted") == 5);
  CHECK(scalars.at("clients/late") == 2);
  CHECK(scalars.at("bytes_up") == 1 << 20);
  CHECK(scalars.at("epsilon") == 1.5f);
  CHECK(scalars.at("energy_j") == 64);
  CHECK(scalars.at("virtual_hours") == 2);
  CHECK(scalars.at("fairness/worst10") == 40);
}

TEST_CASE("events leave out what is not known, and carry what is not finite") {
  RoundMetrics metrics;
  metrics.epsilon = std::numeric_limits<double>::infinity();
  const auto scalars = events_of({metrics}, 1).at(1).scalars;
  for (const char* tag : {"accuracy", "loss", "train_loss", "virtual_hours", "fairness/average"}) {
    CHECK(scalars.count(tag) == 0);
  }
  CHECK(std::isinf(scalars.at("epsilon")));
}

TEST_CASE("a server's rounds lie in time as far apart as its clock says") {
  RoundMetrics first, second;
  first.started = Time(from_seconds(5000));
  first.ended = Time(from_seconds(5010));
  second.started = Time(from_seconds(5010));
  second.ended = Time(from_seconds(5030));
  const auto events = events_of({first, second}, 100);
  CHECK(events[1].wall_time == 110);
  CHECK(events[2].wall_time == 130);
}

TEST_CASE("an events file that cannot be written says which") {
  const auto file = EventFile::create("/no/such/folder/events", 1);
  REQUIRE_FALSE(file.ok());
  CHECK_THAT(file.error().message, Catch::Contains("/no/such/folder/events"));
}
