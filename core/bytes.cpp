#include <covey/bytes.hpp>

namespace covey {

Digest SharedBytes::digest() const {
  if (buffer_ == nullptr || view_.size() != buffer_->all.size()) return sha256(view_);
  std::call_once(buffer_->hashed, [this] { buffer_->digest = sha256(buffer_->all); });
  return buffer_->digest;
}

}  // namespace covey
