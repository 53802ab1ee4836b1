"""What cifarnet promises, and the tests that provoke the fault of each promise ("room/file::test", apart by spaces)."""

HEAD = """# Reliability

Training runs die, disks fill up, and files come from strangers. What happens then is promised here, and each promise has a test that
provokes the real fault: a real `kill -9`, a full file system, a power cut under a mounted ext4, a read-only medium, a second process, broken
files. {rows} faults, {tests} tests, {cases} cases. This page is written by `python scripts/proof/reliability.py`.

An error is one line on stderr, `error: what: why; what to do`; a traceback comes only with `--debug`. The exit code is 2 where the request
was refused before any work, 1 where the work failed, 130 after Ctrl-C, 143 after SIGTERM. What was on the disk before is never lost or half
overwritten. Tests that need a GPU, or the right to mount a file system, are skipped with that reason where it is missing.
"""

PROMISES = [
    ("`kill -9` at any moment, also within a write: the checkpoint before it loads, what the write left is swept",
     "test_faults::test_kill_storm engine/test_loop::test_kill_9_loses_nothing test_faults::test_killed_before_the_first_state_was_saved models/test_checkpoint::test_orphans_are_swept"),
    ("disk full while saving: the old checkpoint stays, no temporary file; 1",
     "test_faults::test_a_full_disk_while_saving models/test_checkpoint::test_a_full_disk_keeps_the_old_file"),
    ("disk full while logging: one warning, training goes on, no line is lost", "test_faults::test_a_full_disk_while_logging"),
    ("power cut: the old or the new file, whole", "test_faults::test_a_power_cut_leaves_the_old_or_the_new_file"),
    ("SIGTERM and Ctrl-C: the step is finished, the state saved, 143 and 130; a second signal, or one outside training, ends at once",
     "engine/test_loop::test_signals_end_the_real_program_in_good_order test_faults::test_a_second_signal_ends_the_process_at_once test_faults::test_signals_while_data_is_read"),
    ("a loss or gradient that is not finite: stopped before the update, checkpoints as they were; 1",
     "engine/test_loop::test_a_loss_that_is_not_finite_stops_before_the_update"),
    ("a metric that is not a number is never best", "engine/test_loop::test_a_metric_that_is_not_a_number_is_never_best"),
    ("a resumed run equals the uninterrupted one bit for bit: weights, optimizer, head's state, metrics", "engine/test_loop::test_resume_is_bitwise"),
    ("resume with another configuration: the differences are listed; 2", "engine/test_loop::test_what_may_change_on_resume cli/test_commands::test_resume_and_overwrite"),
    ("resume of a finished run: nothing to do; 0", "cli/test_commands::test_resume_and_overwrite"),
    ("resume of weights alone: `--init-from` is suggested; 2", "test_faults::test_weights_alone_are_not_resumed"),
    ("run folder in use, or not empty: 2", "cli/test_commands::test_one_run_a_folder cli/test_commands::test_resume_and_overwrite"),
    ("output that cannot be written, or a file in the way: found before training; 2",
     "test_faults::test_a_read_only_run_folder_is_found_before_training cli/test_commands::test_a_file_in_the_way"),
    ("out of memory: a smaller batch is suggested; 1",
     "test_faults::test_out_of_memory_suggests_a_smaller_batch test_faults::test_out_of_gpu_memory_suggests_a_smaller_batch"),
    ("a device that is not there: the devices are listed, never a silent CPU; 2", "cli/test_commands::test_wrong_options_are_refused_before_any_work"),
    ("numbers out of range: the option and the range; 2", "cli/test_commands::test_wrong_options_are_refused_before_any_work core/test_config::test_numbers_out_of_range_are_refused"),
    ("another torch or GPU since the checkpoint: a warning, and on", "test_faults::test_a_state_of_another_torch_and_gpu_is_warned_of"),
    ("checkpoint cut short, with trailing bytes, or with a hostile header: 2, by every command",
     "test_faults::test_a_broken_checkpoint_is_refused_by_every_command models/test_checkpoint::test_truncated models/test_checkpoint::test_trailing_bytes models/test_checkpoint::test_huge_header_length models/test_checkpoint::test_broken_headers models/test_checkpoint::test_overlapping_offsets"),
    ("a pickle is never loaded; 2", "models/test_checkpoint::test_pickles_are_never_loaded test_security::test_nothing_that_runs_code_from_a_file"),
    ("another architecture or class count: the names and shapes that differ; 2", "models/test_checkpoint::test_metadata_is_checked_before_use"),
    ("no metadata: never guessed; 2", "models/test_checkpoint::test_no_metadata_is_never_guessed"),
    ("weights that are not finite: 2", "models/test_checkpoint::test_weights_that_are_not_finite"),
    ("data missing and no network: where it was looked for, how to get it; 2",
     "test_faults::test_without_a_network data/test_cifar::test_missing_names_the_folders_and_the_command data/test_cifar::test_no_network"),
    ("wrong file size: the expected and the actual; 2", "data/test_cifar::test_wrong_sizes_and_missing_files"),
    ("wrong checksum of an archive: discarded; 2", "data/test_cifar::test_an_archive_that_is_not_the_published_one data/test_cifar::test_bad_downloads_leave_nothing"),
    ("label out of range: file and record, before a device sees it; 2", "data/test_cifar::test_label_out_of_range_by_file_and_record"),
    ("hostile archive: only the named members, at their sizes",
     "data/test_cifar::test_hostile_archives_even_with_the_right_checksum data/test_cifar::test_members_beside_the_named_ones_are_neither_written_nor_read data/test_cifar::test_a_huge_member_ends_the_search"),
    ("download cut short, or a web page in place of the file: nothing is left behind; 1",
     "data/test_cifar::test_bad_downloads_leave_nothing data/test_cifar::test_interrupted_by_the_user data/test_cifar::test_orphans_of_killed_processes_are_swept"),
    ("only the pickle version of CIFAR is there: why it is not read, what to fetch; 2", "data/test_cifar::test_only_the_pickle_version"),
    ("cache folder read-only: the variable that moves it; 2", "test_faults::test_a_read_only_cache_folder data/test_cifar::test_a_cache_that_cannot_be_written"),
    ("image folder without classes, with an empty class, with unreadable images: named; 2",
     "data/test_folder::test_no_folder_and_no_classes data/test_folder::test_an_empty_class data/test_folder::test_unreadable_images_are_named"),
    ("predict: missing, unreadable, empty, a FIFO, a folder: one line each, the good ones are done; 1",
     "data/test_images::test_missing_empty_folder_pipe_and_device data/test_images::test_unreadable cli/test_commands::test_predict_reports_bad_files_and_does_the_good cli/test_commands::test_a_folder_needs_recursive"),
    ("not an image, or truncated: named, never half decoded",
     "data/test_images::test_not_an_image_and_formats_off_the_list data/test_images::test_truncated_anywhere_is_never_half_decoded data/test_images::test_progressive_jpeg_cut_between_scans_is_refused data/test_images::test_missing_strips_are_not_left_black"),
    ("decompression bomb: a ceiling on pixels, before decoding", "data/test_images::test_bomb_is_refused_before_decoding data/test_images::test_bomb_takes_no_memory"),
    ("exotic formats: an allow-list", "data/test_images::test_not_an_image_and_formats_off_the_list"),
    ("16 bits are scaled, palettes and transparency laid on white, grey and CMYK made RGB",
     "data/test_images::test_sixteen_bit_grey_is_scaled data/test_images::test_sixteen_bit_colour_is_scaled data/test_images::test_transparency_lies_on_white data/test_images::test_grey_bilevel_and_cmyk_become_rgb"),
    ("EXIF rotation is undone; of an animation the first frame that shows something, with a warning",
     "data/test_images::test_exif_turns_upright data/test_images::test_first_of_several_frames_with_a_warning data/test_images_odd::test_the_first_frame_that_shows_something"),
    ("control characters in names are escaped", "data/test_images::test_names_are_escaped cli/test_commands::test_predict_reports_bad_files_and_does_the_good"),
    ("`| head` is quiet", "cli/test_commands::test_head_of_a_pipe_is_quiet test_faults::test_a_reader_that_went_away_is_no_error"),
    ("unknown layer: the list of layers; 2", "analysis/test_features::test_unknown_layer_lists_the_layers cli/test_figures::test_featuremaps_refuses_what_is_not_there"),
    ("no display: figures all the same", "cli/test_figures::test_figures_are_written_where_they_say"),
    ("fewer points than neighbours: 2", "analysis/test_embedding::test_too_few_points_are_refused cli/test_figures::test_refused"),
    ("half-written line of a log: skipped with a warning", "cli/test_figures::test_half_written_line_is_skipped_with_a_warning"),
    ("an operator without a FLOP formula: listed, not counted as zero", "analysis/test_complexity::test_operators_without_a_formula_are_listed"),
    ("extension built for another torch: seen before it is loaded; a warning, or 2 where it was asked for by name",
     "test_faults::test_an_extension_for_another_torch losses/test_kernels_build::test_built_for_another_torch"),
    ("extension built without this GPU's architecture: likewise",
     "losses/test_kernels_build::test_built_without_this_gpu_s_architecture losses/test_kernels_build::test_which_gpus_a_build_runs_on"),
]  # fmt: skip

BEYOND = [
    ("damaged files of every kind: success or one line", "test_faults::test_fuzz"),
    ("sizes in a file allocate no more than the file justifies", "models/test_checkpoint::test_sizes_in_metadata_do_not_allocate data/test_images::test_bomb_takes_no_memory"),
    ("every number of a training state and of a checkpoint is checked before use",
     "test_faults::test_numbers_of_a_training_state_are_checked test_faults::test_pixels_that_would_be_normalised_to_nonsense test_faults::test_metadata_too_deep_to_be_read engine/test_loop::test_a_state_that_lacks_a_part_is_refused"),
    ("`--deterministic`: equal bits, or a refusal",
     "engine/test_determinism::test_two_runs_are_equal_bit_for_bit engine/test_determinism::test_an_operator_without_a_deterministic_form_is_refused"),
    ("results do not depend on the number of loader workers", "data/test_folder::test_a_streamed_folder_gives_what_one_in_memory_gives"),
    ("`kill -9` of a rank, or SIGTERM to one: all ranks end, the checkpoint is whole, torchrun's restart goes on from it, and only with its own run",
     "core/test_distributed::test_kill_9_of_a_rank_ends_all_and_torchrun_resumes core/test_distributed::test_sigterm_saves_once_and_ends_all core/test_distributed::test_a_restart_resumes_no_run_that_it_did_not_begin core/test_distributed::test_a_rank_that_waits_for_one_that_is_gone_ends"),
    ("a rank with other options or data, or without them: all refuse before the first step",
     "core/test_distributed::test_what_one_rank_lacks_all_refuse_before_the_first_step"),
    ("several ranks end in good order: no thread of the collectives outlives them, none aborts a finished run",
     "core/test_distributed::test_no_thread_of_gloo_is_left_at_the_end"),
    ("what an option asks for and cannot be is refused before data is read or downloaded",
     "cli/test_commands::test_wrong_options_are_refused_before_any_work"),
    ("several ranks resume bit for bit, too", "core/test_distributed::test_three_ranks_stopped_by_a_signal_to_one_resume_bit_for_bit engine/test_sharded_training::test_training_with_a_spread_head"),
    ("a checkpoint in several files is replaced as a whole; a broken or foreign part is refused",
     "storage/test_sharded_file::test_killed_at_any_moment_a_whole_set_is_there storage/test_sharded_file::test_a_full_disk_keeps_the_old_set storage/test_sharded_file::test_broken_sets_are_refused_in_one_line storage/test_sharded_file::test_parts_that_do_not_fit_together_are_refused storage/test_sharded_file::test_a_truncated_part_and_an_index_that_is_none"),
    ("the index of an image set is never trusted: a change is noticed, a damaged or hostile one is built anew, several starts build one",
     "data/test_folder::test_a_change_is_noticed_and_only_what_is_new_is_decoded data/test_folder::test_a_damaged_or_hostile_index_is_ignored data/test_folder::test_processes_that_start_at_once_decode_each_image_once data/test_folder::test_a_signal_in_the_first_reading_leaves_no_index data/test_webdataset::test_a_damaged_or_hostile_listing_is_ignored data/test_webdataset::test_processes_that_start_at_once_do_the_work_once"),
    ("hostile tar shards: read by position, never unpacked; what does not fit is refused",
     "data/test_webdataset::test_only_plain_members_are_read_and_nothing_is_written data/test_webdataset::test_headers_that_ask_for_memory_or_for_ever data/test_webdataset::test_tars_that_are_refused data/test_webdataset::test_samples_that_are_refused"),
    ("results that cannot be written are an error", "test_faults::test_results_that_cannot_be_written_are_an_error"),
    ("a class name is a name: no formula, no escape sequence", "analysis/test_plots::test_names_that_look_like_markup models/test_checkpoint::test_metadata_is_checked_before_use"),
    ("a head that is not compiled is said once a process, with the command that compiles it",
     "losses/test_kernels_build::test_not_built losses/test_kernels_build::test_no_compiler_is_one_message_and_no_failure"),
    ("`cifarnet doctor` tells what a bug report needs", "cli/test_doctor::test_versions_devices_and_disk cli/test_doctor::test_the_backend_and_why cli/test_doctor::test_data_and_runs"),
]  # fmt: skip

TAIL = """
## What may differ without `--deterministic`

On the CPU two runs of one configuration are equal bit for bit, on one machine with one number of threads and one torch. Another number of
threads, another processor or another torch adds up in another order, and may differ in the last digits, which training then amplifies. On a
GPU convolutions and other kernels add in an order that changes from run to run, so that two runs differ slightly; `--deterministic` allows
only algorithms that do not (slower), and refuses an operator that has none. The order of the images and the augmentation never differ: they
follow from the seed, the epoch and the image's place in it, whatever the device, the number of workers or the moment of a resume.
"""
