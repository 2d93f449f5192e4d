#pragma once

#include <covey/bytes.hpp>
#include <covey/result.hpp>
#include <covey/torch/script.hpp>
#include <string>

namespace covey::torch {

/// The file's bytes, kept: every engine makes a module of its own from them, whatever happens to
/// the file meanwhile.
struct ScriptFile {
  std::string path;
  Device device = Device::kCpu;
  SharedBytes bytes;
  std::string sha256;

  static Result<ScriptFile> read(const std::string& path, Device device);
};

}  // namespace covey::torch
