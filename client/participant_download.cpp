#include <fmt/format.h>

#include <algorithm>
#include <covey/client/participant.hpp>
#include <new>
#include <utility>

#include "model_download.hpp"

// How a round's model comes to the device: whole, or as a difference to the one that it holds.
namespace covey::client {

std::uint32_t Participant::piece_bytes() const {
  const std::uint32_t most = std::max(1u, std::min(options_.request_bytes, max_chunk_bytes_));
  return options_.piece_time > Duration::zero() ? rate_.piece(options_.piece_time, most) : most;
}

/// What has to cross the link before the other end can answer.
std::uint64_t Participant::bytes_under_way() const {
  if (phase_ == Phase::kDownloading) return piece_bytes();
  return phase_ == Phase::kUploading && upload_ ? upload_->in_flight() : 0;
}

/// A difference, where there is one to the model at hand and it is shorter than what is missing of
/// the whole.
void Participant::choose_download() {
  const Assignment& assignment = task_->assignment;
  const auto& delta = assignment.delta;
  std::uint64_t missing = assignment.model_size;
  if (partial_ && partial_->blob() == assignment.model && partial_->size() == missing) {
    missing -= partial_->held();
  }
  const bool applies = delta && model_ && delta->base == model_->digest &&
                       model_->bytes.size() == assignment.model_size &&
                       assignment.model_size <= kMostDifferenceWork;
  // What is downloaded, the new model, and as much again while a step is decoded.
  const auto fits = [&] {
    return !options_.has_room || options_.has_room(delta->size + 3 * assignment.model_size);
  };
  if (applies && delta->size > 0 && delta->size < missing && fits()) {
    task_->delta = delta;
  } else {
    task_->delta.reset();
    model_.reset();  // of no use any more
  }
}

void Participant::begin_download(Step step) {
  const Assignment& assignment = task_->assignment;
  const Digest& blob = task_->delta ? task_->delta->blob : assignment.model;
  const std::uint64_t size = task_->delta ? task_->delta->size : assignment.model_size;
  task_->stage = Stage::kDownloading;
  if (partial_ && partial_->blob() == blob && partial_->size() == size) {
    task_->download = std::move(partial_);
  } else {
    task_->download.emplace(blob, size);
  }
  partial_.reset();
  phase_ = Phase::kDownloading;
  retry_at_.reset();
  request_pieces(step);
}

void Participant::request_pieces(Step step) {
  BlobDownload& download = *task_->download;
  if (download.complete()) return finish_download(step);
  while (download.outstanding() + stale_requests_ < kMaxOutstandingRequests) {
    const bool first = download.outstanding() == 0;
    auto request = download.next_request(piece_bytes());
    if (!request) return;
    if (first) transfer_mark_ = step.now;
    step.actions.push_back(Send{*std::move(request)});
  }
}

void Participant::on_message(Step step, BlobChunk chunk) {
  traffic_.model_bytes += chunk.payload.size();
  if (stale_requests_ > 0) {
    --stale_requests_;
    if (phase_ == Phase::kDownloading) request_pieces(step);
    return;
  }
  if (phase_ != Phase::kDownloading) return ignore(step, "a BlobChunk");
  BlobDownload& download = *task_->download;
  const std::uint64_t held = download.held();
  if (auto status = download.accept(chunk); !status) {
    return violation(step, status.error().message);
  }
  came_across_ += download.held() - held;
  rate_.measure(chunk.payload.size(), step.now - transfer_mark_);
  rate_.came_across(std::min(options_.request_bytes, max_chunk_bytes_));
  transfer_mark_ = step.now;
  if (options_.saves_work && download.held() > held) {
    step.actions.push_back(AppendDownload{download.blob(), download.size(), held, chunk.payload});
  }
  request_pieces(step);
}

void Participant::on_message(Step step, BlobMissing missing) {
  if (stale_requests_ > 0) {
    --stale_requests_;
    if (phase_ == Phase::kDownloading) request_pieces(step);
    return;
  }
  if (phase_ != Phase::kDownloading || missing.blob != task_->download->blob()) {
    return ignore(step, "BlobMissing");
  }
  // Requests behind the one answered are still under way, and count as stale from here on.
  task_->download->drop_oldest();
  if (task_->delta)
    return fetch_whole_model(step, "the server does not have the difference any more");
  decline(step, "the server does not have model " + missing.blob.hex());
}

/// The difference came to nothing. Once for each assignment: nothing leads back to a difference.
void Participant::fetch_whole_model(Step step, std::string_view reason) {
  step.actions.push_back(Note{fmt::format("{}; downloading the whole model", reason)});
  if (task_->download) stale_requests_ += task_->download->outstanding();
  task_->delta.reset();
  model_.reset();
  begin_download(step);
}

Result<SharedBytes> Participant::apply_delta(const SharedBytes& delta) const {
  const Assignment& assignment = task_->assignment;
  try {
    return client::apply_difference(assignment, *task_->delta, model_->bytes, delta);
  } catch (const std::bad_alloc&) {
    return failed("the model's difference takes more memory than this device gives");
  }
}

void Participant::finish_download(Step step) {
  const std::uint64_t size = task_->download->size();
  auto bytes = task_->download->finish();
  task_->download.reset();
  if (bytes && task_->delta) {
    bytes = apply_delta(*bytes);
    if (!bytes) return fetch_whole_model(step, bytes.error().message);
  }
  if (bytes) {
    const char* what = task_->delta ? "the model's difference" : "the model";
    step.actions.push_back(Note{fmt::format("{} is here: {} bytes", what, size)});
    task_->delta.reset();
    model_ = SavedModel{task_->assignment.model, *std::move(bytes)};
    return begin_training(step);
  }
  if (task_->delta) return fetch_whole_model(step, bytes.error().message);
  if (task_->download_was_wrong) return decline(step, bytes.error().message);
  task_->download_was_wrong = true;
  step.actions.push_back(Note{bytes.error().message + "; downloading it once more"});
  begin_download(step);
}

}  // namespace covey::client
