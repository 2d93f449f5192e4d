#include "data/idx.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>

namespace covey::models {
namespace {

// The format's type code of unsigned bytes.
constexpr std::uint32_t kUnsignedBytes = 0x08;
// Values are taken in pieces, so that a hostile header cannot ask for memory the file does not
// fill.
constexpr std::size_t kPieceBytes = 1 << 22;

struct CloseGz {
  void operator()(gzFile_s* file) const { gzclose(file); }
};
using GzFile = std::unique_ptr<gzFile_s, CloseGz>;

/// Up to out.size() bytes; error when the compressed stream is broken.
Result<std::size_t> read_some(gzFile file, const std::string& path, std::uint8_t* out,
                              std::size_t size) {
  const int count = gzread(file, out, static_cast<unsigned>(size));
  int code = Z_OK;
  const char* text = gzerror(file, &code);
  if (count < 0 || (code != Z_OK && code != Z_BUF_ERROR)) {
    return malformed(fmt::format("{}: cannot be read: {}", path, text));
  }
  return static_cast<std::size_t>(count);
}

Result<std::uint32_t> read_u32(gzFile file, const std::string& path) {
  std::array<std::uint8_t, 4> bytes{};
  COVEY_ASSIGN(const std::size_t count, read_some(file, path, bytes.data(), bytes.size()));
  if (count != bytes.size()) return malformed(path + ": ends inside the header");
  std::uint32_t value = 0;
  for (const std::uint8_t byte : bytes) value = (value << 8) | byte;
  return value;
}

Result<std::vector<std::uint8_t>> read_values(gzFile file, const std::string& path,
                                              std::uint64_t expected) {
  std::vector<std::uint8_t> values;
  while (values.size() < expected) {
    const std::size_t start = values.size();
    const auto piece =
        static_cast<std::size_t>(std::min<std::uint64_t>(kPieceBytes, expected - start));
    values.resize(start + piece);
    COVEY_ASSIGN(const std::size_t count, read_some(file, path, values.data() + start, piece));
    if (count < piece) {
      return malformed(
          fmt::format("{}: is cut short: the header announces {} bytes of values, {} "
                      "are there",
                      path, expected, start + count));
    }
  }
  std::uint8_t beyond = 0;
  COVEY_ASSIGN(const std::size_t more, read_some(file, path, &beyond, 1));
  int code = Z_OK;
  gzerror(file, &code);
  if (more == 0 && code != Z_OK) {  // the values are complete, the stream's checksum is not there
    return malformed(path + ": is cut short: the compressed data have no end");
  }
  if (more > 0) {
    return malformed(fmt::format(
        "{}: goes on behind the {} bytes of values that the header announces", path, expected));
  }
  return values;
}

}  // namespace

Result<IdxArray> read_idx(const std::string& path, std::uint32_t dimensions,
                          std::uint64_t max_values) {
  const GzFile file(gzopen(path.c_str(), "rb"));
  if (!file) return not_found(path + ": cannot be opened");
  COVEY_ASSIGN(const std::uint32_t magic, read_u32(file.get(), path));
  const std::uint32_t expected_magic = (kUnsignedBytes << 8) | dimensions;
  if (magic != expected_magic) {
    return malformed(
        fmt::format("{}: magic number 0x{:08x}, expected 0x{:08x} (unsigned bytes, {} dimensions)",
                    path, magic, expected_magic, dimensions));
  }
  IdxArray array;
  std::uint64_t total = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    COVEY_ASSIGN(const std::uint32_t extent, read_u32(file.get(), path));
    array.extents.push_back(extent);
    total *= extent;
    if (total > std::numeric_limits<std::uint32_t>::max()) {
      return malformed(
          fmt::format("{}: dimension {} is {}: more than 2^32 values", path, i, extent));
    }
  }
  if (total > max_values) {
    return failed(fmt::format("{}: {} values, more than the {} bytes that they may take", path,
                              total, max_values));
  }
  COVEY_ASSIGN(array.values, read_values(file.get(), path, total));
  return array;
}

}  // namespace covey::models
