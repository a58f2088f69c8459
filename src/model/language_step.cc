#include "model/language_step.h"

#include <algorithm>

namespace idefics {

namespace {

void merge(const ImageRows& image, Matrix<float> x) {
  IDEFICS_CHECK(std::ssize(image.indices) == image.embeddings.rows());
  for (int64_t k = 0; k < image.embeddings.rows(); ++k) {
    const int32_t row = image.indices[static_cast<size_t>(k)];
    if (row < 0 || row >= x.rows()) continue;
    std::copy_n(image.embeddings.row(k), x.cols(), x.row(row));
  }
}

}  // namespace

void run_language_step(const Network& network, const Exec& exec, const LanguageStep& step, KvCache& cache,
                       Matrix<float> x, Matrix<float> logits, const Probe& probe) {
  network.embed(step.tokens, x);
  for (const ImageRows& image : step.images) merge(image, x);
  if (probe) probe("merged", x);
  network.run(exec, step.sequences, cache, x, probe);
  if (!step.logit_rows.empty()) network.logits(exec, x, step.logit_rows, logits, probe);
}

int32_t num_logit_rows(ReturnLogits mode, int32_t num_rows, int64_t n) {
  switch (mode) {
    case ReturnLogits::kLastToken: return 1;
    case ReturnLogits::kVariable: return static_cast<int32_t>(std::min<int64_t>(n, num_rows));
    case ReturnLogits::kAll: return num_rows;
  }
  return num_rows;
}

}  // namespace idefics
