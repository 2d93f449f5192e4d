#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <covey/assert.hpp>
#include <covey/time.hpp>

namespace covey::simulation {

/// Events in order of virtual time; those of one moment in the order in which they were put in.
/// Payloads lie outside the heap, so ordering moves 24 bytes whatever an event weighs.
template <typename Event>
class EventQueue {
 public:
  void push(Time at, Event event) {
    std::uint32_t slot = 0;
    if (free_.empty()) {
      slot = static_cast<std::uint32_t>(slots_.size());
      slots_.push_back(std::move(event));
    } else {
      slot = free_.back();
      free_.pop_back();
      slots_[slot] = std::move(event);
    }
    heap_.push_back({at, sequence_++, slot});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }

  bool empty() const { return heap_.empty(); }
  Time next_at() const {
    COVEY_ASSERT(!heap_.empty());
    return heap_.front().at;
  }

  std::pair<Time, Event> pop() {
    COVEY_ASSERT(!heap_.empty());
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Entry entry = heap_.back();
    heap_.pop_back();
    free_.push_back(entry.slot);
    return {entry.at, std::move(slots_[entry.slot])};
  }

 private:
  struct Entry {
    Time at;
    std::uint64_t sequence;
    std::uint32_t slot;
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.at != b.at ? a.at > b.at : a.sequence > b.sequence;
  }

  std::vector<Entry> heap_;
  std::vector<Event> slots_;
  std::vector<std::uint32_t> free_;
  std::uint64_t sequence_ = 0;
};

}  // namespace covey::simulation
