// Values of a stage of the network beside the summary of them that the reference left.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace idefics::golden {

// All rows of a stage, one after the other.
struct Stage {
  int64_t cols = 0;
  std::vector<float> values;
};

inline float largest(std::span<const float> values) {
  float most = 0;
  for (const float x : values) most = std::max(most, std::abs(x));
  return most;
}

// Empty when the stage lies within `relative` of the largest value, else what differs.
inline std::string compare_summary(const Stage& stage, const json::object& want, double relative) {
  const double absmax = want.at("absmax").to_number<double>(), tolerance = relative * std::max(1.0, absmax);
  size_t count = 1;
  for (const json::value& d : want.at("shape").as_array()) count *= d.to_number<size_t>();
  if (stage.values.size() != count)
    return "has " + std::to_string(stage.values.size()) + " values, wanted " + std::to_string(count);
  double worst = std::abs(largest(stage.values) - absmax);
  const auto take = [&](size_t at, const json::value& v) {
    worst = std::max(worst, std::abs(stage.values[at] - v.to_number<double>()));
  };
  const size_t last_row = count - static_cast<size_t>(stage.cols);
  for (size_t i = 0; i < want.at("first").as_array().size(); ++i) take(i, want.at("first").at(i));
  for (size_t i = 0; i < want.at("last").as_array().size(); ++i) take(last_row + i, want.at("last").at(i));
  for (size_t i = 0; i < want.at("at").as_array().size(); ++i)
    take(want.at("at").at(i).to_number<size_t>(), want.at("values").at(i));
  double sum = 0;
  for (const float x : stage.values) sum += x;
  worst = std::max(worst, std::abs(sum / static_cast<double>(count) - want.at("mean").to_number<double>()));
  return worst <= tolerance ? "" : "differs by " + std::to_string(worst / tolerance) + " of the tolerance";
}

}  // namespace idefics::golden
