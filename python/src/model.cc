#include "idefics/model.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "binding.h"

namespace idefics::python {

namespace {

// Properties that hold tensors: arrays in and out over the same bytes.
template <typename T>
void array_property(nb::class_<T>& c, const char* name, Tensor T::*field, const char* doc) {
  c.def_prop_rw(
      name, [field](const T& self) { return to_array(self.*field); },
      [field](T& self, nb::handle value) { self.*field = to_tensor(value); }, doc);
}
template <typename T>
void array_property(nb::class_<T>& c, const char* name, std::optional<Tensor> T::*field, const char* doc) {
  c.def_prop_rw(
      name, [field](const T& self) { return to_array(self.*field); },
      [field](T& self, nb::handle value) { self.*field = to_optional_tensor(value); }, nb::arg().none(), doc);
}

nb::list to_arrays(const std::vector<Tensor>& tensors) {
  nb::list out;
  for (const Tensor& tensor : tensors) out.append(to_array(tensor));
  return out;
}

nb::list call(const Model& model, nb::args inputs) {
  std::vector<Tensor> tensors;
  for (nb::handle input : inputs) tensors.push_back(to_tensor(input));
  std::vector<Tensor> outputs;
  {
    nb::gil_scoped_release release;
    outputs = model.execute(tensors);
  }
  return to_arrays(outputs);
}

std::vector<Batch> to_batches(nb::handle batches) {
  std::vector<Batch> out;
  for (nb::handle batch : batches) {
    Batch contexts;
    for (nb::handle context : batch) contexts.push_back(nb::cast<const TextAndVisionContext*>(context));
    out.push_back(std::move(contexts));
  }
  return out;
}

void bind_context(nb::module_& m) {
  nb::class_<TokenBuffer>(m, "TokenBuffer",
                          "The tokens of a sequence: processed ones are in the KV cache, active ones go through the "
                          "model next, later ones wait while a prompt is computed in chunks.")
      .def(
          "__init__", [](TokenBuffer* self, std::vector<int32_t> prompt) { new (self) TokenBuffer(std::move(prompt)); },
          nb::arg("prompt"))
      .def_prop_ro(
          "all", [](const TokenBuffer& t) { return to_array(t.all()); }, "int32, a copy.")
      .def_prop_ro("prompt", [](const TokenBuffer& t) { return to_array(t.prompt()); })
      .def_prop_ro("generated", [](const TokenBuffer& t) { return to_array(t.generated()); })
      .def_prop_ro("active", [](const TokenBuffer& t) { return to_array(t.active()); })
      .def("__len__", &TokenBuffer::size)
      .def_prop_ro("prompt_length", &TokenBuffer::prompt_length)
      .def_prop_ro("processed_length", &TokenBuffer::processed_length)
      .def_prop_ro("active_length", &TokenBuffer::active_length)
      .def_prop_ro("actively_chunked", &TokenBuffer::actively_chunked)
      .def("skip_processing", &TokenBuffer::skip_processing, nb::arg("n"),
           "Marks the first n active tokens as processed: a cached prefix has them.")
      .def("rewind_processing", &TokenBuffer::rewind_processing, nb::arg("n"))
      .def("chunk", &TokenBuffer::chunk, nb::arg("n"), "Leaves the first n active tokens active, the rest waits.")
      .def("advance_chunk", &TokenBuffer::advance_chunk)
      .def("advance_with_token", &TokenBuffer::advance_with_token, nb::arg("id"));

  nb::class_<ImageMetadata> image(m, "ImageMetadata", "One tile of a picture.");
  image
      .def(
          "__init__",
          [](ImageMetadata* self, int start_idx, int end_idx, nb::handle pixel_values, std::optional<int64_t> hash) {
            new (self) ImageMetadata{start_idx, end_idx, to_tensor(pixel_values), hash};
          },
          nb::arg("start_idx"), nb::arg("end_idx"), nb::arg("pixel_values"), nb::arg("image_hash") = nb::none())
      .def_rw("start_idx", &ImageMetadata::start_idx, "Its image tokens are [start_idx, end_idx) of the sequence.")
      .def_rw("end_idx", &ImageMetadata::end_idx)
      .def_rw("image_hash", &ImageMetadata::image_hash, "XXH3-64 of the pixels as a signed number, or None.");
  array_property(image, "pixel_values", &ImageMetadata::pixel_values, "float32 [3, side, side], normalised.");

  nb::class_<TextAndVisionContext>(m, "TextAndVisionContext", "One sequence on its way through the model.")
      .def(nb::init<>())
      .def_rw("request_id", &TextAndVisionContext::request_id, "Names it to a PagedKVCacheManager.")
      .def_rw("tokens", &TextAndVisionContext::tokens)
      .def_rw("images", &TextAndVisionContext::images, "ImageMetadata, ascending and disjoint. A copy of the list.")
      .def_rw("vision_token_ids", &TextAndVisionContext::vision_token_ids)
      .def_rw("max_length", &TextAndVisionContext::max_length, "Most tokens of the sequence.")
      .def_rw("sampling_params", &TextAndVisionContext::sampling_params)
      .def_rw("eos_token_ids", &TextAndVisionContext::eos_token_ids)
      .def_prop_ro(
          "next_images",
          [](const TextAndVisionContext& c) {
            const auto images = c.next_images();
            return std::vector<ImageMetadata>(images.begin(), images.end());
          },
          "The images with tokens that are still to be computed.")
      .def_prop_ro("needs_vision_encoding", &TextAndVisionContext::needs_vision_encoding)
      .def("update", &TextAndVisionContext::update, nb::arg("new_token"),
           "After a step: the next chunk of the prompt begins, or `new_token` is appended and active.")
      .def("check", &TextAndVisionContext::check, "Raises Error when the images do not fit the tokens.");

  nb::class_<TextGenerationRequest>(m, "TextGenerationRequest", "A prompt to be answered.")
      .def(
          "__init__",
          [](TextGenerationRequest* self, std::string request_id, nb::handle messages,
             std::optional<std::string> prompt, nb::iterable images, const PromptOptions& options,
             const SamplingParams& sampling_params) {
            TextGenerationRequest request{.request_id = std::move(request_id),
                                          .messages = to_messages(messages),
                                          .prompt = std::move(prompt),
                                          .images = {},
                                          .options = options,
                                          .sampling_params = sampling_params};
            for (nb::handle picture : images) request.images.push_back(to_picture(picture));
            new (self) TextGenerationRequest(std::move(request));
          },
          nb::arg("request_id") = "", nb::arg("messages") = nb::make_tuple(), nb::arg("prompt") = nb::none(),
          nb::arg("images") = nb::make_tuple(), nb::arg("options") = PromptOptions(),
          nb::arg("sampling_params") = SamplingParams(),
          "`messages` (objects or dictionaries), or `prompt` (trusted text, \"<image>\" is a picture's place) with "
          "`images` (bytes or paths).")
      .def_rw("request_id", &TextGenerationRequest::request_id);

  nb::class_<Idefics3Tokenizer>(m, "Idefics3Tokenizer", "Prompts become contexts.")
      .def_static("load", &Idefics3Tokenizer::load, nb::arg("folder"), nb::arg("max_length") = nb::none(),
                  nb::call_guard<nb::gil_scoped_release>())
      .def("new_context", &Idefics3Tokenizer::new_context, nb::arg("request"), nb::arg("hash_images") = false,
           nb::call_guard<nb::gil_scoped_release>(),
           "All tokens active, each tile with its range and pixels.\nRaises Error; PromptTooLongError when the prompt "
           "has more than max_length tokens.")
      .def("encode", &Idefics3Tokenizer::encode, nb::arg("text"), nb::arg("add_special_tokens") = true)
      .def(
          "decode",
          [](const Idefics3Tokenizer& self, const std::vector<int32_t>& ids, bool skip) {
            return self.decode(ids, skip);
          },
          nb::arg("ids"), nb::arg("skip_special_tokens") = true)
      .def_prop_ro("max_length", &Idefics3Tokenizer::max_length)
      .def_prop_ro("processor", &Idefics3Tokenizer::processor, nb::rv_policy::reference_internal);
}

void bind_inputs(nb::module_& m) {
  nb::class_<KVCacheInputs> kv(m, "KVCacheInputs", "Where the keys and values of each sequence lie.");
  kv.def(
      "__init__",
      [](KVCacheInputs* self, nb::handle kv_blocks, nb::handle cache_lengths, nb::handle lookup_table,
         nb::handle max_prompt_length, nb::handle max_cache_length, nb::handle page_stride) {
        new (self) KVCacheInputs{to_tensor(kv_blocks),
                                 to_tensor(cache_lengths),
                                 to_tensor(lookup_table),
                                 to_tensor(max_prompt_length),
                                 to_tensor(max_cache_length),
                                 to_tensor(page_stride),
                                 std::nullopt};
      },
      nb::arg("kv_blocks"), nb::arg("cache_lengths"), nb::arg("lookup_table"), nb::arg("max_prompt_length"),
      nb::arg("max_cache_length"), nb::arg("page_stride"));
  kv.def(
      "flatten", [](const KVCacheInputs& self) { return to_arrays(self.flatten()); },
      "All arrays in order: the inputs of the language model behind its first five.");
  array_property(kv, "kv_blocks", &KVCacheInputs::kv_blocks,
                 "[pages, L, G, page_size / 64, block] in the layout of the kernels; bfloat16 has __dlpack__ only.");
  array_property(kv, "cache_lengths", &KVCacheInputs::cache_lengths, "uint32 [B]: tokens in the cache already.");
  array_property(kv, "lookup_table", &KVCacheInputs::lookup_table, "uint32 [B, max_pages].");
  array_property(kv, "max_prompt_length", &KVCacheInputs::max_prompt_length, "uint32 [1].");
  array_property(kv, "max_cache_length", &KVCacheInputs::max_cache_length, "uint32 [1].");
  array_property(kv, "page_stride", &KVCacheInputs::page_stride, "int64 [1]: elements from page to page.");
  array_property(kv, "attention_dispatch_metadata", &KVCacheInputs::attention_dispatch_metadata, "Always None.");

  nb::class_<PagedKVCacheManager>(m, "PagedKVCacheManager",
                                  "Owns the bytes of a paged cache and knows which sequence has which pages.")
      .def(nb::init<const KVCacheParams&, int64_t>(), nb::arg("params"), nb::arg("total_num_pages"))
      .def("claim", &PagedKVCacheManager::claim, nb::arg("context"))
      .def("contains", &PagedKVCacheManager::contains, nb::arg("context"))
      .def("alloc", &PagedKVCacheManager::alloc, nb::arg("context"), nb::arg("num_steps") = 1,
           "Gives the sequence pages for its next steps. Raises Error (\"out_of_memory\") and takes none.")
      .def(
          "runtime_inputs",
          [](const PagedKVCacheManager& self, nb::handle batch) {
            return self.runtime_inputs(to_batches(nb::make_tuple(batch)).front());
          },
          nb::arg("batch"),
          nb::sig("def runtime_inputs(self, batch: collections.abc.Iterable[TextAndVisionContext]) -> "
                  "KVCacheInputs"))
      .def("release", &PagedKVCacheManager::release, nb::arg("context"))
      .def_prop_ro("total_num_pages", &PagedKVCacheManager::total_num_pages)
      .def_prop_ro("num_free_pages", &PagedKVCacheManager::num_free_pages)
      .def_prop_ro("bytes_per_page", &PagedKVCacheManager::bytes_per_page);

  nb::class_<Idefics3Inputs> in(m, "Idefics3Inputs",
                                "Everything one step reads. B sequences, T active tokens, M tiles, P image tokens.");
  in.def(
      "__init__",
      [](Idefics3Inputs* self, nb::handle tokens, nb::handle input_row_offsets, nb::handle return_n_logits,
         nb::handle pixel_values, nb::handle image_token_indices, std::optional<KVCacheInputs> kv_cache_inputs,
         nb::handle lora_ids, nb::handle lora_ranks, nb::handle hidden_states) {
        new (self) Idefics3Inputs{to_tensor(tokens),
                                  to_tensor(input_row_offsets),
                                  to_tensor(return_n_logits),
                                  to_optional_tensor(pixel_values),
                                  to_optional_tensor(image_token_indices),
                                  std::move(kv_cache_inputs),
                                  to_optional_tensor(lora_ids),
                                  to_optional_tensor(lora_ranks),
                                  to_optional_tensor(hidden_states)};
      },
      nb::arg("tokens"), nb::arg("input_row_offsets"), nb::arg("return_n_logits"), nb::arg("pixel_values") = nb::none(),
      nb::arg("image_token_indices") = nb::none(), nb::arg("kv_cache_inputs") = nb::none(),
      nb::arg("lora_ids") = nb::none(), nb::arg("lora_ranks") = nb::none(), nb::arg("hidden_states") = nb::none());
  array_property(in, "tokens", &Idefics3Inputs::tokens, "int64 [T].");
  array_property(in, "input_row_offsets", &Idefics3Inputs::input_row_offsets, "uint32 [B + 1]; first 0, last T.");
  array_property(in, "return_n_logits", &Idefics3Inputs::return_n_logits, "int64 [1]: n of ReturnLogits.VARIABLE.");
  array_property(in, "pixel_values", &Idefics3Inputs::pixel_values,
                 "float32 or bfloat16 [M, 3, image_size, image_size], or None.");
  array_property(in, "image_token_indices", &Idefics3Inputs::image_token_indices,
                 "int32 [P]: the row of each feature; negative, or T and more: the feature is dropped.");
  array_property(in, "lora_ids", &Idefics3Inputs::lora_ids, "None.");
  array_property(in, "lora_ranks", &Idefics3Inputs::lora_ranks, "None.");
  array_property(in, "hidden_states", &Idefics3Inputs::hidden_states, "None.");
  in.def_rw("kv_cache_inputs", &Idefics3Inputs::kv_cache_inputs, nb::arg().none());
  in.def_prop_ro("has_vision_inputs", &Idefics3Inputs::has_vision_inputs);

  m.def(
      "remove_padding_frames",
      [](nb::handle padded, Architecture architecture, DType dtype) {
        const RealFrames real = remove_padding_frames(to_tensor(padded), architecture, dtype);
        return nb::make_tuple(to_array(real.pixel_values), real.frames_per_sample);
      },
      nb::arg("padded"), nb::arg("architecture"), nb::arg("dtype") = DType::kF32,
      nb::sig("def remove_padding_frames(padded: object, architecture: Architecture, dtype: DType = ...) -> "
              "tuple[object, list[int]]"),
      "The frames of a padded batch (float32 [B, n, 3, side, side]) that are not all 0, as transformers counts them: "
      "[M, 3, side, side], and how many of each sample.");
}

}  // namespace

void bind_model(nb::module_& m) {
  bind_context(m);
  bind_inputs(m);

  nb::class_<ModelOutputs> out(
      m, "ModelOutputs", "What comes out of a step; sequence i owns rows logit_offsets[i] to logit_offsets[i + 1].");
  array_property(out, "logits", &ModelOutputs::logits, "float32 [rows, V].");
  array_property(out, "next_token_logits", &ModelOutputs::next_token_logits, "float32 [B, V].");
  array_property(out, "logit_offsets", &ModelOutputs::logit_offsets, "int64 or uint32 [B + 1]; None for LAST_TOKEN.");
  array_property(out, "hidden_states", &ModelOutputs::hidden_states, "float32, as ReturnHiddenStates says, or None.");

  nb::class_<InferenceSession>(m, "InferenceSession", "What models compute on: threads and the level of the CPU.")
      .def(nb::init<int>(), nb::arg("num_threads") = 0, "0: the CPUs this process may use.")
      .def_prop_ro("num_threads", &InferenceSession::num_threads)
      .def_prop_ro("kernels", &InferenceSession::kernels, "\"ref\", \"avx2\", \"avx512\" or \"amx\".");

  nb::class_<Model>(m, "Model",
                    "The vision or the language model, called with arrays and giving a list of arrays.\n\n"
                    "vision: pixel_values [M, 3, s, s] -> [float32 [M * image_seq_len, E]]\n"
                    "language: tokens, input_row_offsets, return_n_logits, image_embeddings, image_token_indices, "
                    "*KVCacheInputs.flatten() -> next_token_logits, and unless LAST_TOKEN logits and logit_offsets; "
                    "hidden states last.")
      .def("execute", &call)
      .def("__call__", &call)
      .def_prop_ro("name", &Model::name);

  nb::class_<Idefics3Model> model(m, "Idefics3Model", "The model step by step.");
  model
      .def(
          "__init__",
          [](Idefics3Model* self, const PipelineConfig& pipeline_config, const InferenceSession& session,
             const std::vector<DeviceRef>& devices, const KVCacheConfig& kv_cache_config,
             const std::filesystem::path& weights, const WeightsAdapter& adapter, ReturnLogits return_logits,
             ReturnHiddenStates return_hidden_states, std::vector<int> hidden_state_layers, bool allow_nonfinite) {
            nb::gil_scoped_release release;
            new (self) Idefics3Model(
                Idefics3Model::load(pipeline_config, session, devices, kv_cache_config, weights, adapter, return_logits,
                                    {return_hidden_states, std::move(hidden_state_layers), allow_nonfinite}));
          },
          nb::arg("pipeline_config"), nb::arg("session"), nb::arg("devices"), nb::arg("kv_cache_config"),
          nb::arg("weights"), nb::arg("adapter") = nb::none(), nb::arg("return_logits") = ReturnLogits::kLastToken,
          nb::kw_only(), nb::arg("return_hidden_states") = ReturnHiddenStates::kNone,
          nb::arg("hidden_state_layers") = std::vector<int>(), nb::arg("allow_nonfinite") = false,
          "`weights`: the folder of the safetensors files. `adapter`: renames tensors.\n"
          "Raises Error: \"bad_model\", \"invalid_value\", \"out_of_memory\".")
      .def_static(
          "load",
          [](const std::filesystem::path& folder, ReturnLogits return_logits, ReturnHiddenStates return_hidden_states,
             std::vector<int> hidden_state_layers, bool allow_nonfinite, std::optional<DType> dtype) {
            nb::gil_scoped_release release;
            return Idefics3Model::load(folder, return_logits,
                                       {return_hidden_states, std::move(hidden_state_layers), allow_nonfinite}, dtype);
          },
          nb::arg("folder"), nb::arg("return_logits") = ReturnLogits::kLastToken, nb::kw_only(),
          nb::arg("return_hidden_states") = ReturnHiddenStates::kNone,
          nb::arg("hidden_state_layers") = std::vector<int>(), nb::arg("allow_nonfinite") = false,
          nb::arg("dtype") = nb::none(),
          "Everything from the folder. `dtype`: None means bfloat16 when the weights are stored so, else float32.")
      .def_static("calculate_max_seq_len", &Idefics3Model::calculate_max_seq_len, nb::arg("pipeline_config"),
                  nb::arg("huggingface_config"))
      .def("load_model", &Idefics3Model::load_model, nb::arg("session"),
           "(vision_model, language_model) on a session; the weights are shared.")
      .def_prop_ro("vision_model", [](const Idefics3Model& self) { return self.vision_model(); })
      .def_prop_ro("language_model", [](const Idefics3Model& self) { return self.language_model(); })
      .def_prop_ro("config", &Idefics3Model::config, nb::rv_policy::reference_internal)
      .def_prop_ro("session", [](const Idefics3Model& self) { return self.session(); })
      .def(
          "prepare_initial_token_inputs",
          [](const Idefics3Model& self, nb::handle replica_batches, const KVCacheInputs* kv_cache_inputs,
             int return_n_logits) {
            return self.prepare_initial_token_inputs(to_batches(replica_batches), kv_cache_inputs, return_n_logits);
          },
          nb::arg("replica_batches"), nb::arg("kv_cache_inputs") = nb::none(), nb::arg("return_n_logits") = 1,
          nb::sig("def prepare_initial_token_inputs(self, replica_batches: "
                  "collections.abc.Iterable[collections.abc.Iterable[TextAndVisionContext]], kv_cache_inputs: "
                  "KVCacheInputs | None = None, return_n_logits: int = 1) -> Idefics3Inputs"),
          "The inputs of the next step of the sequences of the one batch there is; before every step.")
      .def(
          "prepare_next_token_inputs",
          [](const Idefics3Model& self, nb::handle next_tokens, const Idefics3Inputs& prev_model_inputs) {
            return self.prepare_next_token_inputs(to_tensor(next_tokens), prev_model_inputs);
          },
          nb::arg("next_tokens"), nb::arg("prev_model_inputs"),
          "The inputs of the step after, one new token a sequence: `next_tokens` int64 [B].")
      .def("execute", &Idefics3Model::execute, nb::arg("model_inputs"), nb::call_guard<nb::gil_scoped_release>(),
           "One step. Raises Error naming the input that does not fit; the cache is then as it was.");
  model.attr("model_config_cls") = m.attr("Idefics3Config");
}

}  // namespace idefics::python
