#include <unistd.h>

#include <catch2/catch.hpp>
#include <covey/client/spool.hpp>
#include <covey/client/spool_record.hpp>
#include <filesystem>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

const std::chrono::system_clock::time_point kWall{1'700'000'000s};

struct Disk {
  std::shared_ptr<MemoryDisk> memory = std::make_shared<MemoryDisk>();
  std::vector<std::string> notes;
  std::uint64_t max_bytes = 1 << 20;
  ClientId client{3};

  SpoolOptions options() {
    SpoolOptions of_spool;
    of_spool.client = client;
    of_spool.max_bytes = max_bytes;
    of_spool.encode = [](const Assignment& a) { return proto::encode(ServerMessage(a)).header; };
    of_spool.decode = [](std::span<const std::byte> bytes) -> Result<Assignment> {
      COVEY_ASSIGN(ServerMessage message, proto::decode_server_message(bytes, {}));
      return std::get<Assignment>(std::move(message));
    };
    of_spool.note = [this](std::string_view text) { notes.emplace_back(text); };
    return of_spool;
  }
  Spool open() { return Spool(memory->open(), options()); }
};

SavedWork everything() {
  SavedWork work;
  work.memory.draws = 17;
  work.memory.violations = 2;
  work.memory.declines = 3;
  work.memory.residual = patterned_bytes(400, 4);
  work.memory.residual_run = RunId{7};
  work.memory.earlier = std::make_shared<const EarlierResidual>(
      EarlierResidual{RoundNumber{4}, patterned_bytes(400, 5)});
  work.last_accepted = RoundOfRun(RunId{7}, RoundNumber{4});
  work.revealed = {{RunId{7}, RoundNumber{3}}, {RunId{2}, RoundNumber{9}}};
  work.keyed = {{RunId{7}, RoundNumber{4}, {{1, 2, 3}}}, {RunId{7}, RoundNumber{5}, {{4}}}};
  work.not_before = Time(100s);
  const SharedBytes model = patterned_bytes(kSmallModelBytes, 1);
  work.model = SavedModel{sha256(model.span()), model};
  SavedTask& task = work.task.emplace();
  task.assignment = make_assignment(model, 5);
  task.report_by = Time(500s);
  task.trained = make_update();
  task.trained->residual = patterned_bytes(400, 6);
  task.train_time = 3s;
  task.reported = true;
  return work;
}

bool equal(const SharedBytes& a, const SharedBytes& b) {
  return std::ranges::equal(a.span(), b.span());
}

AppendDownload piece_of(const SharedBytes& blob, std::uint64_t offset, std::uint64_t length) {
  return {sha256(blob.span()), blob.size(), offset, blob.slice(offset, length)};
}

SavedWork downloading(const SharedBytes& blob) {
  SavedWork work;
  work.task.emplace().assignment = make_assignment(blob);
  work.download = SavedDownload{sha256(blob.span()), blob.size(), {}};
  return work;
}

}  // namespace

TEST_CASE("a later process is given back everything that was saved") {
  Disk disk;
  disk.open().save(everything(), {Time(40s), kWall});
  // 20 s later on the wall, and by a clock that began anew.
  const SavedWork back = disk.open().load({Time(1s), kWall + 20s});
  const SavedWork work = everything();
  CHECK(disk.notes.empty());
  CHECK(back.memory.draws == 17);
  CHECK(back.memory.violations == 2);
  CHECK(back.memory.declines == 3);
  CHECK(equal(back.memory.residual, work.memory.residual));
  CHECK(back.memory.residual_run == RunId{7});
  REQUIRE(back.memory.earlier);
  CHECK(back.memory.earlier->round == RoundNumber{4});
  CHECK(equal(back.memory.earlier->bytes, work.memory.earlier->bytes));
  CHECK(back.last_accepted == work.last_accepted);
  CHECK(back.revealed == work.revealed);
  CHECK(back.keyed == work.keyed);
  CHECK(back.not_before == Time(41s));  // 60 s from saving, of which 20 passed
  REQUIRE(back.model);
  CHECK(back.model->digest == work.model->digest);
  CHECK(equal(back.model->bytes, work.model->bytes));
  REQUIRE(back.task);
  CHECK(back.task->assignment == work.task->assignment);
  CHECK(back.task->report_by == Time(441s));
  CHECK(back.task->train_time == Duration(3s));
  CHECK(back.task->reported);
  CHECK_FALSE(back.task->decided);
  REQUIRE(back.task->trained);
  const TrainedUpdate &was = *work.task->trained, &is = *back.task->trained;
  CHECK(equal(is.update, was.update));
  CHECK(is.digest == was.digest);
  CHECK(is.weight == was.weight);
  CHECK(is.scalars == was.scalars);
  CHECK(is.num_examples == was.num_examples);
  CHECK(is.steps == was.steps);
  CHECK(is.train_loss == was.train_loss);
  REQUIRE(is.residual);
  CHECK(equal(*is.residual, *was.residual));
}

TEST_CASE("a state that was torn or changed at any byte is dropped with a word") {
  Disk disk;
  disk.open().save(everything(), {Time(40s), kWall});
  const auto whole = disk.memory->files.at("state");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    REQUIRE_FALSE(parse_state(std::span(whole).first(size)).ok());
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    auto changed = whole;
    changed[at] ^= std::byte{1};
    REQUIRE_FALSE(parse_state(changed).ok());
  }
  auto longer = whole;
  longer.push_back({});
  REQUIRE_FALSE(parse_state(longer).ok());
  disk.memory->files["state"].pop_back();
  const SavedWork back = disk.open().load({Time(1s), kWall});
  CHECK_FALSE(back.task);
  REQUIRE(disk.notes.size() == 1);
  CHECK(disk.notes[0].find("dropped") != std::string::npos);
  CHECK(disk.memory->files.empty());  // nothing is left that nobody knows
}

TEST_CASE("a state with a good checksum and nonsense inside is refused") {
  const auto refused = [](auto spoil) {
    StateRecord record;
    record.task.emplace().trained.emplace();
    spoil(record);
    return !parse_state(serialise(record)).ok();
  };
  CHECK_FALSE(refused([](StateRecord&) {}));
  CHECK(refused([](StateRecord& r) { r.task->train_time = Duration(-1); }));
  CHECK(refused([](StateRecord& r) { r.task->assignment.resize((1 << 20) + 1); }));
  CHECK(refused([](StateRecord& r) { r.task->trained->scalars.resize(1025); }));
  CHECK(refused([](StateRecord& r) { r.task->trained->packed = privacy::PackedFormat{1, 10}; }));
  CHECK(refused([](StateRecord& r) { r.task->trained->packed = privacy::PackedFormat{57, 10}; }));
  CHECK(refused([](StateRecord& r) { r.task->trained->packed = privacy::PackedFormat{20, 0}; }));
  CHECK(refused([](StateRecord& r) {
    r.task->trained->packed = privacy::PackedFormat{20, SIZE_MAX};
  }));
}

TEST_CASE("blobs that are not what was written are dropped, and the rest is kept") {
  Disk disk;
  disk.open().save(everything(), {Time(40s), kWall});
  const std::string update = "blob-" + make_update().digest.hex();
  SECTION("changed") { disk.memory->files.at(update)[5] ^= std::byte{4}; }
  SECTION("cut") { disk.memory->files.at(update).pop_back(); }
  SECTION("gone") { disk.memory->files.erase(update); }
  const SavedWork back = disk.open().load({Time(1s), kWall});
  REQUIRE(back.task);
  CHECK_FALSE(back.task->trained);  // to be trained again
  CHECK_FALSE(back.task->reported);
  CHECK(back.model);
  CHECK(disk.notes.size() == 1);
  CHECK_FALSE(disk.memory->files.contains(update));
}

TEST_CASE("what another device left is not used") {
  Disk disk;
  disk.open().save(everything(), {Time(40s), kWall});
  disk.client = ClientId{4};
  const SavedWork back = disk.open().load({Time(1s), kWall});
  CHECK_FALSE(back.task);
  CHECK_FALSE(back.model);
  CHECK(back.memory.residual.empty());
  REQUIRE(disk.notes.size() == 1);
  CHECK(disk.notes[0].find("device 3") != std::string::npos);
}

TEST_CASE("a download goes on behind the last piece that is whole, wherever a write was torn") {
  const SharedBytes blob = patterned_bytes(1000, 3);
  Disk disk;
  {
    Spool spool = disk.open();
    spool.save(downloading(blob), {Time(1s), kWall});
    for (std::uint64_t at = 0; at < 600; at += 200) spool.append(piece_of(blob, at, 200), Time(2s));
  }
  const std::string data = "download-" + sha256(blob.span()).hex(), journal = data + ".journal";
  const auto files = disk.memory->files;
  const auto held = [&] {
    const auto back = disk.open().load({Time(1s), kWall});
    if (!back.download) return std::size_t{0};
    REQUIRE(std::ranges::equal(back.download->held.span(),
                               blob.span().first(back.download->held.size())));
    // What is not whole is gone from the disk, too.
    REQUIRE(disk.memory->files.at(data).size() == back.download->held.size());
    return back.download->held.size();
  };
  CHECK(held() == 600);
  for (std::size_t size = 0; size < 600; ++size) {
    disk.memory->files = files;
    disk.memory->files.at(data).resize(size);
    REQUIRE(held() == size / 200 * 200);
  }
  for (std::size_t size = 0; size < files.at(journal).size(); ++size) {
    disk.memory->files = files;
    disk.memory->files.at(journal).resize(size);
    const std::size_t entries =
        size < DownloadJournal::kHeaderBytes
            ? 0
            : (size - DownloadJournal::kHeaderBytes) / DownloadJournal::kEntryBytes;
    REQUIRE(held() == 200 * entries);
  }
  for (const std::string& name : {data, journal}) {
    for (std::size_t at = 0; at < files.at(name).size(); ++at) {
      disk.memory->files = files;
      disk.memory->files.at(name)[at] ^= std::byte{0x10};
      REQUIRE(held() < 600);
    }
  }
}

TEST_CASE("a loss of power costs a megabyte of a download at most, or what came in ten seconds") {
  const SharedBytes blob = patterned_bytes(3'000'000, 3);
  constexpr std::uint64_t kPiece = 100'000;
  const Duration pace = GENERATE(Duration(1ms), Duration(4s));
  Disk disk;
  disk.max_bytes = 8 << 20;
  Spool spool = disk.open();
  spool.save(downloading(blob), {Time(1s), kWall});
  Time now(2s);
  for (std::uint64_t at = 0; at < 2'500'000; at += kPiece, now += pace) {
    spool.append(piece_of(blob, at, kPiece), now);
    const auto files = disk.memory->files, durable = disk.memory->durable;
    disk.memory->lose_power();
    const auto back = disk.open().load({Time(1s), kWall});
    const std::uint64_t held = back.download ? back.download->held.size() : 0;
    const std::uint64_t lost = at + kPiece - held;
    REQUIRE(lost <= 1 << 20);
    if (pace > 1s)
      REQUIRE(lost <= 4 * kPiece);  // of 12 s, of which the last piece may be just there
    disk.memory->files = files;
    disk.memory->durable = durable;
  }
}

TEST_CASE(
    "a download goes on where it was after a restart, and becomes the blob when it is complete") {
  const SharedBytes blob = patterned_bytes(1000, 3);
  Disk disk;
  {
    Spool spool = disk.open();
    spool.save(downloading(blob), {Time(1s), kWall});
    spool.append(piece_of(blob, 0, 300), Time(2s));
  }
  Spool spool = disk.open();
  CHECK(spool.load({Time(1s), kWall}).download->held.size() == 300);
  spool.append(piece_of(blob, 300, 700), Time(2s));
  SECTION("and is not recorded yet when the process ends") {
    const auto back = disk.open().load({Time(1s), kWall});
    REQUIRE(back.download);
    CHECK(equal(back.download->held, blob));
  }
  SECTION("and is saved as the model") {
    SavedWork work = downloading(blob);
    work.download.reset();
    work.model = SavedModel{sha256(blob.span()), blob};
    const auto writes = disk.memory->writes;
    spool.save(work, {Time(3s), kWall});
    CHECK(disk.memory->writes ==
          writes + 3);  // renamed, its journal removed, the state: not written again
    const auto stored = spool.stored(blob);
    CHECK(stored.data() != blob.data());
    CHECK(equal(stored, blob));
    CHECK(spool.stored(blob).data() == stored.data());  // also by those who still have the first
    CHECK(equal(disk.open().load({Time(1s), kWall}).model->bytes, blob));
  }
}

TEST_CASE(
    "what does not fit is not kept, the update first of all is, and the disk stays within its "
    "bounds") {
  Disk disk;
  disk.max_bytes = 5000;  // the update has 3000 bytes, the residuals 400 each, the model 2440
  Spool spool = disk.open();
  spool.save(everything(), {Time(40s), kWall});
  CHECK(spool.bytes_on_disk() <= 5000);
  REQUIRE(disk.notes.size() == 1);
  CHECK(disk.notes[0].find("the model of 2440 bytes is not kept") != std::string::npos);
  const auto back = disk.open().load({Time(1s), kWall});
  CHECK(back.task->trained);
  CHECK_FALSE(back.model);
  disk.notes.clear();
  spool.append(piece_of(patterned_bytes(3000, 8), 0, 200), Time(41s));
  REQUIRE(disk.notes.size() == 1);
  CHECK(disk.notes[0].find("download of 3000 bytes is not kept") != std::string::npos);
  CHECK(spool.bytes_on_disk() <= 5000);
}

TEST_CASE("what is no longer named is removed") {
  Disk disk;
  Spool spool = disk.open();
  spool.save(everything(), {Time(40s), kWall});
  spool.append(piece_of(patterned_bytes(3000, 8), 0, 200), Time(41s));
  disk.memory->files["notes-of-the-owner"] = {};
  spool.save(SavedWork{}, {Time(50s), kWall});
  CHECK(disk.memory->files.size() == 2);  // the state, and what is not ours
  disk.memory->files["blob-x.tmp"] = MemoryDisk::Bytes(10);
  disk.open().load({Time(1s), kWall});
  CHECK(disk.memory->files.size() == 2);
}

TEST_CASE("whichever write fails, what is given back is whole or missing") {
  const bool tears = GENERATE(false, true);
  const bool for_good = GENERATE(false, true);
  std::uint32_t n = 0;
  for (bool failed_once = true; failed_once; ++n) {
    INFO("write " << n << " fails, torn: " << tears << ", and all behind it: " << for_good);
    Disk disk;
    disk.memory->tears = tears;
    (for_good ? disk.memory->fails_from : disk.memory->fails_at) = n;
    const SharedBytes blob = patterned_bytes(1000, 3);
    {
      Spool spool = disk.open();
      spool.load({Time(1s), kWall});
      spool.save(downloading(blob), {Time(1s), kWall});
      for (std::uint64_t at = 0; at < 1000; at += 250)
        spool.append(piece_of(blob, at, 250), Time(2s));
      SavedWork work = everything();
      work.model = SavedModel{sha256(blob.span()), blob};
      spool.save(work, {Time(3s), kWall});
      spool.save(everything(), {Time(4s), kWall});
    }
    failed_once = disk.memory->writes > n;
    // A single failure may be mended by making room.
    if (failed_once && for_good) REQUIRE_FALSE(disk.notes.empty());
    disk.memory->fails_from.reset();
    disk.memory->fails_at.reset();
    const SavedWork back = disk.open().load({Time(5s), kWall});
    if (back.model) REQUIRE(sha256(back.model->bytes.span()) == back.model->digest);
    if (back.task && back.task->trained)
      REQUIRE(equal(back.task->trained->update, make_update().update));
    if (back.download) {
      REQUIRE(std::ranges::equal(back.download->held.span(),
                                 blob.span().first(back.download->held.size())));
    }
    if (!failed_once) REQUIRE(back.model->digest == everything().model->digest);
  }
  CHECK(n > 15);
}

TEST_CASE("clocks that jump do not keep a device away") {
  Disk disk;
  disk.open().save(everything(), {Time(40s), kWall});  // to stay away for 60 s
  const auto not_before = [&](Duration later) {
    return disk.open().load({Time(1000s), kWall + later}).not_before;
  };
  CHECK(not_before(10s) == Time(1050s));
  CHECK(not_before(1h) < Time(1000s));  // long past
  CHECK_FALSE(not_before(-1s));         // set back: nobody knows
  CHECK_FALSE(not_before(-24h * 365 * 50));
  CHECK(disk.notes.size() == 2);
  SavedWork far = everything();
  far.not_before = Time(40s) + kLongestAbsence + 1s;
  disk.open().save(far, {Time(40s), kWall});
  CHECK_FALSE(not_before(10s));
}

TEST_CASE("a state directory on a real disk survives, is the owner's only, and is locked") {
  const auto path = std::filesystem::temp_directory_path() /
                    ("covey-spool-" + std::to_string(::getpid()) + "-" +
                     std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
  Disk disk;
  const SharedBytes blob = patterned_bytes(3'000'000, 3);  // beyond what is synced at once
  {
    auto folder = open_state_folder((path / "deeper").string());
    REQUIRE(folder.ok());
    const auto second = open_state_folder((path / "deeper").string());
    REQUIRE_FALSE(second.ok());
    CHECK(second.error().message.find("in use by another process") != std::string::npos);
    disk.max_bytes = 8 << 20;
    Spool spool(*std::move(folder), disk.options());
    spool.load({Time(1s), kWall});
    spool.save(downloading(blob), {Time(1s), kWall});
    for (std::uint64_t at = 0; at < 2'000'000; at += 500'000) {
      spool.append(piece_of(blob, at, 500'000), Time(2s));
    }
  }
  {
    Spool spool(*open_state_folder((path / "deeper").string()), disk.options());
    auto back = spool.load({Time(1s), kWall});
    REQUIRE(back.download);
    CHECK(back.download->held.size() == 2'000'000);
    spool.append(piece_of(blob, 2'000'000, 1'000'000), Time(2s));
    SavedWork work = everything();
    work.model = SavedModel{sha256(blob.span()), blob};
    spool.save(work, {Time(3s), kWall});
    CHECK(equal(spool.stored(blob), blob));
  }
  for (const auto& file : std::filesystem::directory_iterator(path / "deeper")) {
    CHECK((file.status().permissions() & std::filesystem::perms(077)) ==
          std::filesystem::perms::none);
  }
  {
    Spool spool(*open_state_folder((path / "deeper").string()), disk.options());
    const auto back = spool.load({Time(1s), kWall});
    REQUIRE(back.model);
    CHECK(equal(back.model->bytes, blob));
    CHECK(equal(back.task->trained->update, make_update().update));
  }
  CHECK(disk.notes.empty());
  std::filesystem::remove_all(path);
}

TEST_CASE("a state directory that cannot be is refused with its name") {
  const auto folder = open_state_folder("/proc/covey-cannot-be/here");
  REQUIRE_FALSE(folder.ok());
  CHECK(folder.error().message.find("/proc/covey-cannot-be") != std::string::npos);
}
