// Which bytes of a text came from outside the template.
#pragma once

#include <cstddef>
#include <vector>

#include "text/text_range.h"

namespace idefics::jinja {

// Sorted, disjoint, not touching byte ranges.
class Taint {
 public:
  bool any() const { return !ranges_.empty(); }
  const std::vector<TextRange>& ranges() const { return ranges_; }

  // Adds [begin, end), which starts at or after the start of every range so far.
  void add(size_t begin, size_t end) {
    if (begin >= end) return;
    if (!ranges_.empty() && begin <= ranges_.back().end) {
      if (end > ranges_.back().end) ranges_.back().end = end;
    } else {
      ranges_.push_back({begin, end});
    }
  }
  // Adds the part of `other` inside [begin, end), moved so that `begin` comes to lie at `at`.
  void add_part(const Taint& other, size_t begin, size_t end, size_t at);

  // Tells of increasing positions whether they are tainted, in one pass.
  class Cursor {
   public:
    explicit Cursor(const Taint& taint) : ranges_(taint.ranges()) {}
    bool at(size_t position) {
      while (next_ < ranges_.size() && ranges_[next_].end <= position) ++next_;
      return next_ < ranges_.size() && ranges_[next_].begin <= position;
    }

   private:
    const std::vector<TextRange>& ranges_;
    size_t next_ = 0;
  };

 private:
  std::vector<TextRange> ranges_;
};

}  // namespace idefics::jinja
