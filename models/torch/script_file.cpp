#include "script_file.hpp"

#include <filesystem>
#include <fstream>
#include <vector>

namespace covey::torch {

Result<ScriptFile> ScriptFile::read(const std::string& path, Device device) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code)) {
    return not_found("TorchScript file " + path + ": there is no such file");
  }
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = in ? static_cast<std::streamoff>(in.tellg()) : -1;
  if (size < 0) return failed("TorchScript file " + path + " cannot be opened");
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!in) return failed("TorchScript file " + path + " cannot be read");
  ScriptFile file;
  file.path = path;
  file.device = device;
  file.bytes = SharedBytes(std::move(bytes));
  file.sha256 = file.bytes.digest().hex();
  return file;
}

}  // namespace covey::torch
