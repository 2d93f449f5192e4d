#include "local_data/pnm.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "local_data/file_data.hpp"

namespace covey::client {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

/// A number of the header, behind white space and comments (# to the end of the line); nothing at
/// anything else, or above 2^24.
std::optional<std::uint32_t> read_number(std::FILE* file) {
  int c = std::fgetc(file);
  while (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '#') {
    if (c == '#') {
      while (c != '\n' && c != EOF) c = std::fgetc(file);
    } else {
      c = std::fgetc(file);
    }
  }
  if (c < '0' || c > '9') return std::nullopt;
  std::uint32_t number = 0;
  for (; c >= '0' && c <= '9'; c = std::fgetc(file)) {
    number = number * 10 + static_cast<std::uint32_t>(c - '0');
    if (number > (1u << 24)) return std::nullopt;
  }
  std::ungetc(c, file);
  return number;
}

/// Whether somebody may still be writing the file.
bool being_written(std::FILE* file) {
  struct stat status {};
  return ::fstat(::fileno(file), &status) == 0 &&
         may_be_growing(std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 +
                        status.st_mtim.tv_nsec);
}

}  // namespace

std::string describe(const PnmImage& image) {
  return fmt::format("{}x{} pixels of {} channel{}", image.extents[1], image.extents[0],
                     image.extents[2], image.extents[2] == 1 ? "" : "s");
}

Result<bool> read_pnm(const std::string& path, std::uint64_t max_bytes, PnmImage& image) {
  const File file(std::fopen(path.c_str(), "rbe"));
  if (!file) return not_found(path + ": cannot be opened");
  const int letter = std::fgetc(file.get());
  const int kind = std::fgetc(file.get());
  const auto width = read_number(file.get());
  const auto height = read_number(file.get());
  const auto levels = read_number(file.get());
  const bool header = letter == 'P' && (kind == '5' || kind == '6') && width && height && levels;
  if (!header || *width == 0 || *height == 0) {
    if (std::feof(file.get()) && being_written(file.get())) return false;
    return malformed(path + ": is no binary PGM or PPM image (P5 or P6)");
  }
  if (*levels == 0 || *levels > 255) {
    return malformed(
        fmt::format("{}: has {} levels of brightness; 1 to 255 are read", path, *levels));
  }
  std::fgetc(file.get());  // the one white space in front of the pixels
  image.extents = {*height, *width, kind == '5' ? 1u : 3u};
  const std::uint64_t size = std::uint64_t{*height} * *width * image.extents[2];
  if (size > max_bytes) {
    return failed(fmt::format("{}: {}, more than the {} bytes that images may take (max-bytes)",
                              path, describe(image), max_bytes));
  }
  image.pixels.resize(static_cast<std::size_t>(size));
  if (std::fread(image.pixels.data(), 1, image.pixels.size(), file.get()) != image.pixels.size()) {
    if (being_written(file.get())) return false;
    return malformed(
        fmt::format("{}: is cut short; {} take {} bytes", path, describe(image), size));
  }
  if (*levels < 255) {
    for (std::uint8_t& pixel : image.pixels) {
      const std::uint32_t value = std::min<std::uint32_t>(pixel, *levels);
      pixel = static_cast<std::uint8_t>((value * 255 + *levels / 2) / *levels);
    }
  }
  return true;
}

}  // namespace covey::client
