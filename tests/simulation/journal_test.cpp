#include "simulation/journal.hpp"

#include <catch2/catch.hpp>
#include <covey/random.hpp>
#include <filesystem>
#include <fstream>
#include <limits>

#include "resumable_run.hpp"

using namespace covey;
using namespace covey::simulation;
using covey::testing::read_bytes;
using covey::testing::ScratchFolder;
using covey::testing::write_bytes;

namespace {

const Digest kRun = sha256(std::as_bytes(std::span("run", 3)));

std::vector<Record> sample_records() {
  TrainedRecord trained{5,
                        ClientId{1'000'000},
                        RoundNumber{300},
                        std::nullopt,
                        800,
                        20.5,
                        {1, -2.25},
                        600,
                        12,
                        std::numeric_limits<double>::quiet_NaN(),
                        7,
                        privacy::PackedFormat{24, 99}};
  TrainedRecord failed_one;
  failed_one.training = 6;
  failed_one.failure = "the loss is not finite";
  AppliedRecord applied;
  applied.round = RoundNumber{300};
  applied.parameter_bytes = 796;
  applied.sent = {{796, kRun}, {199, Digest{}}};
  applied.privacy.emplace();
  applied.privacy->plan = {ClipKind::kFlat, 0.5, DeviceNoise::kSkellam, 0.125};
  applied.privacy->spent = {1.5, 2.5, 1e-6};
  applied.privacy->guarantee = "for one device more or less";
  applied.figures = server::SecureSumFigures{1, 2, 3.5, 4, 5, 6.5};
  applied.culprit = ClientId{9};
  AppliedRecord refused;
  refused.failure = "no device is in the sum";
  return {trained,
          failed_one,
          JudgedRecord{ClientId{4}, RoundNumber{2}, std::nullopt},
          JudgedRecord{ClientId{5}, RoundNumber{2}, {{RejectReason::kOverNorm, "norm 3 > 2"}}},
          applied,
          refused,
          EvaluatedRecord{RoundNumber{2}, 0.5, 1.25},
          PublishedRecord{RoundNumber{2}, 12.5, FairnessFigures{10, 50, 20, 80, 100}},
          PublishedRecord{RoundNumber{3}, 13.5, std::nullopt}};
}

std::vector<std::byte> bytes_of(const Record& record) {
  ByteWriter out;
  encode(record, out);
  return {out.bytes().begin(), out.bytes().end()};
}

/// Two blocks of the sample records.
JournalPosition write_sample(const std::string& path) {
  auto writer = JournalWriter::create(path, kRun);
  REQUIRE(writer.ok());
  for (const Record& record : sample_records()) writer->add(record);
  REQUIRE(writer->flush().ok());
  for (const Record& record : sample_records()) writer->add(record);
  const auto position = writer->flush();
  REQUIRE(position.ok());
  return *position;
}

Snapshot sample_snapshot() {
  const auto model = [](std::size_t size, int first) {
    std::vector<std::byte> bytes(size);
    bytes[0] = static_cast<std::byte>(first);
    return SharedBytes(std::move(bytes));
  };
  Snapshot snapshot;
  snapshot.run = kRun;
  snapshot.round = RoundNumber{7};
  snapshot.journal = {1234, kRun};
  snapshot.state = {1.5f, -2, 1e-30f};
  snapshot.noise_bytes = 1ULL << 40;
  snapshot.wall_s = 3.25;
  snapshot.trainings = {3, 70, 100000};
  snapshot.parameters = {{RoundNumber{6}, model(40, 1)}, {RoundNumber{7}, model(40, 2)}};
  snapshot.models = {snapshot.parameters[1].bytes, model(10, 3)};
  return snapshot;
}

}  // namespace

TEST_CASE("every kind of record comes back from its bytes as it was") {
  for (const Record& record : sample_records()) {
    const auto bytes = bytes_of(record);
    ByteReader in{std::span<const std::byte>(bytes)};
    const auto again = decode_record(in);
    REQUIRE(again);
    CHECK(in.left() == 0);
    CHECK(bytes_of(*again) == bytes);
    CHECK(describe(*again) == describe(record));
  }
}

TEST_CASE("a record that lacks its end is no record, wherever it is cut") {
  for (const Record& record : sample_records()) {
    const auto bytes = bytes_of(record);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      ByteReader in{std::span<const std::byte>(bytes).first(length)};
      CHECK_FALSE(decode_record(in));
    }
  }
}

TEST_CASE("random bytes are read without harm, and what is accepted is written the same way") {
  const std::uint64_t seed = 20;
  INFO("seed " << seed);
  RandomStream random(seed, RandomPurpose::kFault);
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes(random.below(80));
    for (auto& byte : bytes)
      byte = static_cast<std::byte>(random.below(random.below(2) == 0 ? 8 : 256));
    ByteReader in{std::span<const std::byte>(bytes)};
    const auto record = decode_record(in);
    if (!record) continue;
    const auto canonical =
        bytes_of(*record);  // a number may have been written longer than it needs
    CHECK(canonical.size() <= bytes.size() - in.left());
  }
}

TEST_CASE("a journal gives back its records in order, and goes on where it was") {
  ScratchFolder folder("journal");
  const std::string path = folder / "journal.bin";
  const JournalPosition position = write_sample(path);
  auto writer = JournalWriter::reopen(path, position);
  REQUIRE(writer.ok());
  writer->add(EvaluatedRecord{RoundNumber{9}, 1, 2});
  const auto end = writer->flush();
  REQUIRE(end.ok());
  CHECK(end->length == std::filesystem::file_size(path));

  auto reader = JournalReader::open(path, kRun, *end);
  REQUIRE(reader.ok());
  std::vector<Record> expected = sample_records();
  const auto again = sample_records();
  expected.insert(expected.end(), again.begin(), again.end());
  expected.emplace_back(EvaluatedRecord{RoundNumber{9}, 1, 2});
  for (const Record& record : expected) {
    CHECK_FALSE(reader->at_end());
    const auto read = reader->next();
    REQUIRE(read.ok());
    REQUIRE(*read);
    CHECK(bytes_of(**read) == bytes_of(record));
  }
  CHECK(reader->at_end());
  CHECK_FALSE(reader->next()->has_value());
}

TEST_CASE("what stands behind a journal's position is cut off") {
  ScratchFolder folder("torn");
  const std::string path = folder / "journal.bin";
  const JournalPosition position = write_sample(path);
  {
    std::ofstream torn(path, std::ios::binary | std::ios::app);
    torn << "half a block";
  }
  CHECK(JournalReader::open(path, kRun, position).ok());
  REQUIRE(JournalWriter::reopen(path, position).ok());
  CHECK(std::filesystem::file_size(path) == position.length);
}

TEST_CASE("a journal that was cut or changed anywhere is refused with a sentence") {
  ScratchFolder folder("damaged");
  const std::string path = folder / "journal.bin";
  const JournalPosition position = write_sample(path);
  const auto good = read_bytes(path);
  for (std::size_t at = 0; at < good.size(); at += at < 80 ? 1 : 7) {
    auto bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    write_bytes(path, bad);
    const auto changed = JournalReader::open(path, kRun, position);
    CAPTURE(at);
    REQUIRE_FALSE(changed.ok());
    CHECK(changed.error().message.find(path) != std::string::npos);
    write_bytes(path, good.substr(0, at));
    CHECK_FALSE(JournalReader::open(path, kRun, position).ok());
  }
  std::filesystem::remove(path);
  CHECK(JournalReader::open(path, kRun, position).error().code == ErrorCode::kNotFound);
}

TEST_CASE("a journal of another run is told apart from a damaged one") {
  ScratchFolder folder("foreign");
  const std::string path = folder / "journal.bin";
  const JournalPosition position = write_sample(path);
  const auto foreign = JournalReader::open(path, Digest{}, position);
  REQUIRE_FALSE(foreign.ok());
  CHECK(foreign.error().message.find("another run") != std::string::npos);
}

TEST_CASE("a snapshot comes back as it was") {
  ScratchFolder folder("snapshot");
  const std::string path = folder / "snapshot.bin";
  CHECK_FALSE(read_snapshot(path)->has_value());
  const Snapshot snapshot = sample_snapshot();
  REQUIRE(write_snapshot(path, snapshot).ok());
  const auto read = read_snapshot(path);
  REQUIRE(read.ok());
  REQUIRE(*read);
  const Snapshot& again = **read;
  CHECK(again.run == snapshot.run);
  CHECK(again.round == snapshot.round);
  CHECK(again.journal == snapshot.journal);
  CHECK(again.state == snapshot.state);
  CHECK(again.noise_bytes == snapshot.noise_bytes);
  CHECK(again.wall_s == snapshot.wall_s);
  CHECK(again.trainings == snapshot.trainings);
  REQUIRE(again.parameters.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(again.parameters[i].round == snapshot.parameters[i].round);
    CHECK(again.parameters[i].bytes.digest() == snapshot.parameters[i].bytes.digest());
  }
  REQUIRE(again.models.size() == 2);
  CHECK(again.models[0].data() == again.parameters[1].bytes.data());  // shared bytes are there once
  CHECK(again.models[1].digest() == snapshot.models[1].digest());
}

TEST_CASE("a snapshot that was cut or changed anywhere is refused with a sentence") {
  ScratchFolder folder("bad-snapshot");
  const std::string path = folder / "snapshot.bin";
  REQUIRE(write_snapshot(path, sample_snapshot()).ok());
  const auto good = read_bytes(path);
  for (std::size_t at = 0; at < good.size(); at += at < 80 ? 1 : 7) {
    auto bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    write_bytes(path, bad);
    CAPTURE(at);
    const auto changed = read_snapshot(path);
    REQUIRE_FALSE(changed.ok());
    CHECK(changed.error().message.find(path) != std::string::npos);
    write_bytes(path, good.substr(0, at));
    CHECK_FALSE(read_snapshot(path).ok());
  }
}
