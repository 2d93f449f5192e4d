#include "errors.hpp"

#include <c10/util/Exception.h>

#include <string_view>

namespace covey::torch {

std::string reason_of(const std::exception& exception) {
  const auto* own = dynamic_cast<const c10::Error*>(&exception);
  const std::string text = own != nullptr ? own->what_without_backtrace() : exception.what();
  // An error inside a TorchScript module ends with "RuntimeError: <reason>" below the module's
  // source; other errors begin with the reason.
  constexpr std::string_view kMark = "RuntimeError: ";
  std::string_view rest = text;
  if (const auto mark = rest.rfind(kMark); mark != std::string_view::npos) {
    rest.remove_prefix(mark + kMark.size());
  }
  while (!rest.empty() && (rest.front() == '\n' || rest.front() == ' ')) rest.remove_prefix(1);
  return std::string(rest.substr(0, rest.find('\n')));
}

}  // namespace covey::torch
