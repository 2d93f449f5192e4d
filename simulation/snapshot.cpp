#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "journal.hpp"

// snapshot.bin: "coveysn2", the values in the order of `write_body`, and the SHA-256 of all before
// it.
namespace covey::simulation {
namespace {

constexpr std::string_view kMagic = "coveysn2";

/// Whose bytes a model's are: a number of `parameters`, or nothing for bytes of its own.
std::optional<std::size_t> shared_with(const Snapshot& snapshot, const SharedBytes& model) {
  for (std::size_t i = 0; i < snapshot.parameters.size(); ++i) {
    const SharedBytes& bytes = snapshot.parameters[i].bytes;
    if (bytes.data() == model.data() && bytes.size() == model.size()) return i;
  }
  return std::nullopt;
}

/// What stands in front of the models' bytes.
ByteWriter write_head(const Snapshot& snapshot) {
  ByteWriter out;
  out.raw(std::as_bytes(std::span(kMagic)));
  out.digest(snapshot.run);
  out.number(value_of(snapshot.round));
  out.number(snapshot.journal.length);
  out.digest(snapshot.journal.chain);
  out.number(snapshot.state.size());
  out.raw(std::as_bytes(std::span(snapshot.state)));
  out.number(snapshot.noise_bytes);
  out.real(snapshot.wall_s);
  out.number(snapshot.trainings.size());
  for (const std::uint64_t training : snapshot.trainings) out.number(training);
  out.number(snapshot.parameters.size());
  for (const auto& [round, bytes] : snapshot.parameters) {
    out.number(value_of(round));
    out.number(bytes.size());
  }
  out.number(snapshot.residuals.size());
  for (const auto& [training, bytes] : snapshot.residuals) {
    out.number(training);
    out.number(bytes.size());
  }
  out.number(snapshot.models.size());
  for (const SharedBytes& model : snapshot.models) {
    const auto shared = shared_with(snapshot, model);
    out.flag(shared.has_value());
    out.number(shared ? *shared : model.size());
  }
  return out;
}

/// The pieces of the file, the last of them its digest.
template <typename Write>
Result<void> write_pieces(const Snapshot& snapshot, Write write) {
  Sha256 hash;
  const auto put = [&](std::span<const std::byte> bytes) {
    hash.update(bytes);
    return write(bytes);
  };
  COVEY_TRY(put(write_head(snapshot).bytes()));
  for (const auto& [round, bytes] : snapshot.parameters) COVEY_TRY(put(bytes.span()));
  for (const auto& [training, bytes] : snapshot.residuals) COVEY_TRY(put(bytes.span()));
  for (const SharedBytes& model : snapshot.models) {
    if (!shared_with(snapshot, model)) COVEY_TRY(put(model.span()));
  }
  const Digest digest = hash.finish();
  return write(std::as_bytes(std::span(digest.bytes)));
}

/// A copy, so that a model is aligned and does not keep the file in memory.
SharedBytes copy(std::span<const std::byte> bytes) {
  return SharedBytes(std::vector<std::byte>(bytes.begin(), bytes.end()));
}

RoundNumber read_round(ByteReader& in) {
  const std::uint64_t value = in.number();
  if (value > UINT32_MAX) in.fail();
  return static_cast<RoundNumber>(value);
}

void read_models(ByteReader& in, Snapshot& snapshot) {
  std::vector<std::uint64_t> sizes(in.count(2));
  snapshot.parameters.resize(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    snapshot.parameters[i].round = read_round(in);
    sizes[i] = in.number();
  }
  std::vector<std::uint64_t> residual_sizes(in.count(2));
  snapshot.residuals.resize(residual_sizes.size());
  for (std::size_t i = 0; i < residual_sizes.size(); ++i) {
    snapshot.residuals[i].training = in.number();
    residual_sizes[i] = in.number();
  }
  struct Model {
    bool shared = false;
    std::uint64_t number = 0;  ///< of the parameters, or its size
  };
  std::vector<Model> models(in.count(2));
  for (Model& model : models) {
    model.shared = in.flag();
    model.number = in.number();
    if (model.shared && model.number >= sizes.size()) in.fail();
  }
  for (std::size_t i = 0; i < sizes.size() && in.ok(); ++i) {
    snapshot.parameters[i].bytes = copy(in.raw(sizes[i]));
  }
  for (std::size_t i = 0; i < residual_sizes.size() && in.ok(); ++i) {
    snapshot.residuals[i].bytes = copy(in.raw(residual_sizes[i]));
  }
  for (std::size_t i = 0; i < models.size() && in.ok(); ++i) {
    const Model& model = models[i];
    snapshot.models.push_back(
        model.shared ? snapshot.parameters[static_cast<std::size_t>(model.number)].bytes
                     : copy(in.raw(model.number)));
  }
}

}  // namespace

Result<void> write_snapshot(const std::string& path, const Snapshot& snapshot) {
  const std::string beside = path + ".new";
  COVEY_ASSIGN(auto file, FileHandle::open_for_writing(beside, true));
  auto written = write_pieces(
      snapshot, [&file](std::span<const std::byte> bytes) { return file.write(bytes); });
  if (written.ok()) written = file.sync();
  if (!written.ok()) return with_context(beside, written.error());
  return rename_durably(beside, path);
}

Result<std::optional<Snapshot>> read_snapshot(const std::string& path) {
  COVEY_ASSIGN(const auto bytes, read_whole_file(path));
  if (!bytes) return std::optional<Snapshot>();
  const auto damaged = malformed(path + " is damaged: this run cannot go on; run it again");
  Digest digest;
  if (bytes->size() < kMagic.size() + digest.bytes.size() ||
      std::memcmp(bytes->data(), kMagic.data(), kMagic.size()) != 0) {
    return damaged;
  }
  const auto body = std::span<const std::byte>(*bytes).first(bytes->size() - digest.bytes.size());
  std::memcpy(digest.bytes.data(), bytes->data() + body.size(), digest.bytes.size());
  if (sha256(body) != digest) return damaged;

  ByteReader in(body.subspan(kMagic.size()));
  Snapshot snapshot;
  snapshot.run = in.digest();
  snapshot.round = read_round(in);
  snapshot.journal.length = in.number();
  snapshot.journal.chain = in.digest();
  const auto state = in.raw(sizeof(float) * in.count(sizeof(float)));
  snapshot.state.resize(state.size() / sizeof(float));
  if (!state.empty()) std::memcpy(snapshot.state.data(), state.data(), state.size());
  snapshot.noise_bytes = in.number();
  snapshot.wall_s = in.real();
  snapshot.trainings.resize(in.count(1));
  for (std::uint64_t& training : snapshot.trainings) training = in.number();
  read_models(in, snapshot);
  if (!in.ok() || in.left() > 0 || snapshot.parameters.empty()) return damaged;
  return std::optional(std::move(snapshot));
}

}  // namespace covey::simulation
