# One VMCS, field by field (SDM 3D appendix B): vmcs01, vmcs12 and vmcs02 are the same type.
# The encoding annotations make the table that VMREAD, VMWRITE and the nested-state layout use.

@0xd0c4f2b7a6e91533;

using A = import "annotations.capnp";

struct Vmcs {
  # 16-bit control fields.
  virtualProcessorId @0 :UInt16 $A.vmcs(0x00000000) $A.hex;
  postedInterruptNotificationVector @1 :UInt16 $A.vmcs(0x00000002) $A.hex;
  eptpIndex @2 :UInt16 $A.vmcs(0x00000004) $A.hex;
  hlatPrefixSize @3 :UInt16 $A.vmcs(0x00000006) $A.hex;
  lastPidPointerIndex @4 :UInt16 $A.vmcs(0x00000008) $A.hex;
  virtualTimerVector @5 :UInt16 $A.vmcs(0x0000000a) $A.hex;
  # 16-bit guest-state fields.
  guestEsSelector @6 :UInt16 $A.vmcs(0x00000800) $A.hex;
  guestCsSelector @7 :UInt16 $A.vmcs(0x00000802) $A.hex;
  guestSsSelector @8 :UInt16 $A.vmcs(0x00000804) $A.hex;
  guestDsSelector @9 :UInt16 $A.vmcs(0x00000806) $A.hex;
  guestFsSelector @10 :UInt16 $A.vmcs(0x00000808) $A.hex;
  guestGsSelector @11 :UInt16 $A.vmcs(0x0000080a) $A.hex;
  guestLdtrSelector @12 :UInt16 $A.vmcs(0x0000080c) $A.hex;
  guestTrSelector @13 :UInt16 $A.vmcs(0x0000080e) $A.hex;
  guestInterruptStatus @14 :UInt16 $A.vmcs(0x00000810) $A.hex;
  pmlIndex @15 :UInt16 $A.vmcs(0x00000812) $A.hex;
  guestUinv @16 :UInt16 $A.vmcs(0x00000814) $A.hex;
  # 16-bit host-state fields.
  hostEsSelector @17 :UInt16 $A.vmcs(0x00000c00) $A.hex;
  hostCsSelector @18 :UInt16 $A.vmcs(0x00000c02) $A.hex;
  hostSsSelector @19 :UInt16 $A.vmcs(0x00000c04) $A.hex;
  hostDsSelector @20 :UInt16 $A.vmcs(0x00000c06) $A.hex;
  hostFsSelector @21 :UInt16 $A.vmcs(0x00000c08) $A.hex;
  hostGsSelector @22 :UInt16 $A.vmcs(0x00000c0a) $A.hex;
  hostTrSelector @23 :UInt16 $A.vmcs(0x00000c0c) $A.hex;
  # 64-bit control fields.
  ioBitmapA @24 :UInt64 $A.vmcs(0x00002000) $A.hex;
  ioBitmapB @25 :UInt64 $A.vmcs(0x00002002) $A.hex;
  msrBitmap @26 :UInt64 $A.vmcs(0x00002004) $A.hex;
  vmExitMsrStoreAddr @27 :UInt64 $A.vmcs(0x00002006) $A.hex;
  vmExitMsrLoadAddr @28 :UInt64 $A.vmcs(0x00002008) $A.hex;
  vmEntryMsrLoadAddr @29 :UInt64 $A.vmcs(0x0000200a) $A.hex;
  executiveVmcsPointer @30 :UInt64 $A.vmcs(0x0000200c) $A.hex;
  pmlAddress @31 :UInt64 $A.vmcs(0x0000200e) $A.hex;
  tscOffset @32 :UInt64 $A.vmcs(0x00002010) $A.hex;
  virtualApicPageAddr @33 :UInt64 $A.vmcs(0x00002012) $A.hex;
  apicAccessAddr @34 :UInt64 $A.vmcs(0x00002014) $A.hex;
  postedIntrDescAddr @35 :UInt64 $A.vmcs(0x00002016) $A.hex;
  vmFunctionControls @36 :UInt64 $A.vmcs(0x00002018) $A.hex;
  eptPointer @37 :UInt64 $A.vmcs(0x0000201a) $A.hex;
  eoiExitBitmap0 @38 :UInt64 $A.vmcs(0x0000201c) $A.hex;
  eoiExitBitmap1 @39 :UInt64 $A.vmcs(0x0000201e) $A.hex;
  eoiExitBitmap2 @40 :UInt64 $A.vmcs(0x00002020) $A.hex;
  eoiExitBitmap3 @41 :UInt64 $A.vmcs(0x00002022) $A.hex;
  eptpListAddress @42 :UInt64 $A.vmcs(0x00002024) $A.hex;
  vmreadBitmap @43 :UInt64 $A.vmcs(0x00002026) $A.hex;
  vmwriteBitmap @44 :UInt64 $A.vmcs(0x00002028) $A.hex;
  veInformationAddress @45 :UInt64 $A.vmcs(0x0000202a) $A.hex;
  xssExitingBitmap @46 :UInt64 $A.vmcs(0x0000202c) $A.hex;
  enclsExitingBitmap @47 :UInt64 $A.vmcs(0x0000202e) $A.hex;
  subPagePermissionTablePointer @48 :UInt64 $A.vmcs(0x00002030) $A.hex;
  tscMultiplier @49 :UInt64 $A.vmcs(0x00002032) $A.hex;
  tertiaryVmExecControl @50 :UInt64 $A.vmcs(0x00002034) $A.hex;
  enclvExitingBitmap @51 :UInt64 $A.vmcs(0x00002036) $A.hex;
  lowPasidDirectoryAddr @52 :UInt64 $A.vmcs(0x00002038) $A.hex;
  highPasidDirectoryAddr @53 :UInt64 $A.vmcs(0x0000203a) $A.hex;
  sharedEptPointer @54 :UInt64 $A.vmcs(0x0000203c) $A.hex;
  pconfigExitingBitmap @55 :UInt64 $A.vmcs(0x0000203e) $A.hex;
  hlatPointer @56 :UInt64 $A.vmcs(0x00002040) $A.hex;
  pidPointerTableAddr @57 :UInt64 $A.vmcs(0x00002042) $A.hex;
  secondaryVmExitControls @58 :UInt64 $A.vmcs(0x00002044) $A.hex;
  ia32SpecCtrlMask @59 :UInt64 $A.vmcs(0x0000204a) $A.hex;
  ia32SpecCtrlShadow @60 :UInt64 $A.vmcs(0x0000204c) $A.hex;
  guestDeadlineShadow @61 :UInt64 $A.vmcs(0x0000204e) $A.hex;
  injectedEventData @62 :UInt64 $A.vmcs(0x00002052) $A.hex;
  # 64-bit read-only-data fields.
  guestPhysicalAddress @63 :UInt64 $A.vmcs(0x00002400) $A.hex;
  msrData @64 :UInt64 $A.vmcs(0x00002402) $A.hex;
  originalEventData @65 :UInt64 $A.vmcs(0x00002404) $A.hex;
  extendedInstructionInfo @66 :UInt64 $A.vmcs(0x00002406) $A.hex;
  # 64-bit guest-state fields.
  vmcsLinkPointer @67 :UInt64 $A.vmcs(0x00002800) $A.hex;
  guestIa32Debugctl @68 :UInt64 $A.vmcs(0x00002802) $A.hex;
  guestIa32Pat @69 :UInt64 $A.vmcs(0x00002804) $A.hex;
  guestIa32Efer @70 :UInt64 $A.vmcs(0x00002806) $A.hex;
  guestIa32PerfGlobalCtrl @71 :UInt64 $A.vmcs(0x00002808) $A.hex;
  guestPdpte0 @72 :UInt64 $A.vmcs(0x0000280a) $A.hex;
  guestPdpte1 @73 :UInt64 $A.vmcs(0x0000280c) $A.hex;
  guestPdpte2 @74 :UInt64 $A.vmcs(0x0000280e) $A.hex;
  guestPdpte3 @75 :UInt64 $A.vmcs(0x00002810) $A.hex;
  guestBndcfgs @76 :UInt64 $A.vmcs(0x00002812) $A.hex;
  guestRtitCtl @77 :UInt64 $A.vmcs(0x00002814) $A.hex;
  guestLbrCtl @78 :UInt64 $A.vmcs(0x00002816) $A.hex;
  guestPkrs @79 :UInt64 $A.vmcs(0x00002818) $A.hex;
  guestFredConfig @80 :UInt64 $A.vmcs(0x0000281a) $A.hex;
  guestFredRsp1 @81 :UInt64 $A.vmcs(0x0000281c) $A.hex;
  guestFredRsp2 @82 :UInt64 $A.vmcs(0x0000281e) $A.hex;
  guestFredRsp3 @83 :UInt64 $A.vmcs(0x00002820) $A.hex;
  guestFredStklvls @84 :UInt64 $A.vmcs(0x00002822) $A.hex;
  guestFredSsp1 @85 :UInt64 $A.vmcs(0x00002824) $A.hex;
  guestFredSsp2 @86 :UInt64 $A.vmcs(0x00002826) $A.hex;
  guestFredSsp3 @87 :UInt64 $A.vmcs(0x00002828) $A.hex;
  guestIa32SpecCtrl @88 :UInt64 $A.vmcs(0x0000282e) $A.hex;
  guestDeadline @89 :UInt64 $A.vmcs(0x00002830) $A.hex;
  # 64-bit host-state fields.
  hostIa32Pat @90 :UInt64 $A.vmcs(0x00002c00) $A.hex;
  hostIa32Efer @91 :UInt64 $A.vmcs(0x00002c02) $A.hex;
  hostIa32PerfGlobalCtrl @92 :UInt64 $A.vmcs(0x00002c04) $A.hex;
  hostPkrs @93 :UInt64 $A.vmcs(0x00002c06) $A.hex;
  hostFredConfig @94 :UInt64 $A.vmcs(0x00002c08) $A.hex;
  hostFredRsp1 @95 :UInt64 $A.vmcs(0x00002c0a) $A.hex;
  hostFredRsp2 @96 :UInt64 $A.vmcs(0x00002c0c) $A.hex;
  hostFredRsp3 @97 :UInt64 $A.vmcs(0x00002c0e) $A.hex;
  hostFredStklvls @98 :UInt64 $A.vmcs(0x00002c10) $A.hex;
  hostFredSsp1 @99 :UInt64 $A.vmcs(0x00002c12) $A.hex;
  hostFredSsp2 @100 :UInt64 $A.vmcs(0x00002c14) $A.hex;
  hostFredSsp3 @101 :UInt64 $A.vmcs(0x00002c16) $A.hex;
  hostIa32SpecCtrl @102 :UInt64 $A.vmcs(0x00002c1a) $A.hex;
  # 32-bit control fields.
  pinBasedVmExecControl @103 :UInt32 $A.vmcs(0x00004000) $A.hex;
  cpuBasedVmExecControl @104 :UInt32 $A.vmcs(0x00004002) $A.hex;
  exceptionBitmap @105 :UInt32 $A.vmcs(0x00004004) $A.hex;
  pageFaultErrorCodeMask @106 :UInt32 $A.vmcs(0x00004006) $A.hex;
  pageFaultErrorCodeMatch @107 :UInt32 $A.vmcs(0x00004008) $A.hex;
  cr3TargetCount @108 :UInt32 $A.vmcs(0x0000400a) $A.hex;
  vmExitControls @109 :UInt32 $A.vmcs(0x0000400c) $A.hex;
  vmExitMsrStoreCount @110 :UInt32 $A.vmcs(0x0000400e) $A.hex;
  vmExitMsrLoadCount @111 :UInt32 $A.vmcs(0x00004010) $A.hex;
  vmEntryControls @112 :UInt32 $A.vmcs(0x00004012) $A.hex;
  vmEntryMsrLoadCount @113 :UInt32 $A.vmcs(0x00004014) $A.hex;
  vmEntryIntrInfo @114 :UInt32 $A.vmcs(0x00004016) $A.hex;
  vmEntryExceptionErrorCode @115 :UInt32 $A.vmcs(0x00004018) $A.hex;
  vmEntryInstructionLen @116 :UInt32 $A.vmcs(0x0000401a) $A.hex;
  tprThreshold @117 :UInt32 $A.vmcs(0x0000401c) $A.hex;
  secondaryVmExecControl @118 :UInt32 $A.vmcs(0x0000401e) $A.hex;
  pleGap @119 :UInt32 $A.vmcs(0x00004020) $A.hex;
  pleWindow @120 :UInt32 $A.vmcs(0x00004022) $A.hex;
  instructionTimeoutControl @121 :UInt32 $A.vmcs(0x00004024) $A.hex;
  # 32-bit read-only-data fields.
  vmInstructionError @122 :UInt32 $A.vmcs(0x00004400) $A.hex;
  vmExitReason @123 :UInt32 $A.vmcs(0x00004402) $A.hex;
  vmExitIntrInfo @124 :UInt32 $A.vmcs(0x00004404) $A.hex;
  vmExitIntrErrorCode @125 :UInt32 $A.vmcs(0x00004406) $A.hex;
  idtVectoringInfo @126 :UInt32 $A.vmcs(0x00004408) $A.hex;
  idtVectoringErrorCode @127 :UInt32 $A.vmcs(0x0000440a) $A.hex;
  vmExitInstructionLen @128 :UInt32 $A.vmcs(0x0000440c) $A.hex;
  vmExitInstructionInfo @129 :UInt32 $A.vmcs(0x0000440e) $A.hex;
  # 32-bit guest-state fields.
  guestEsLimit @130 :UInt32 $A.vmcs(0x00004800) $A.hex;
  guestCsLimit @131 :UInt32 $A.vmcs(0x00004802) $A.hex;
  guestSsLimit @132 :UInt32 $A.vmcs(0x00004804) $A.hex;
  guestDsLimit @133 :UInt32 $A.vmcs(0x00004806) $A.hex;
  guestFsLimit @134 :UInt32 $A.vmcs(0x00004808) $A.hex;
  guestGsLimit @135 :UInt32 $A.vmcs(0x0000480a) $A.hex;
  guestLdtrLimit @136 :UInt32 $A.vmcs(0x0000480c) $A.hex;
  guestTrLimit @137 :UInt32 $A.vmcs(0x0000480e) $A.hex;
  guestGdtrLimit @138 :UInt32 $A.vmcs(0x00004810) $A.hex;
  guestIdtrLimit @139 :UInt32 $A.vmcs(0x00004812) $A.hex;
  guestEsAccessRights @140 :UInt32 $A.vmcs(0x00004814) $A.hex;
  guestCsAccessRights @141 :UInt32 $A.vmcs(0x00004816) $A.hex;
  guestSsAccessRights @142 :UInt32 $A.vmcs(0x00004818) $A.hex;
  guestDsAccessRights @143 :UInt32 $A.vmcs(0x0000481a) $A.hex;
  guestFsAccessRights @144 :UInt32 $A.vmcs(0x0000481c) $A.hex;
  guestGsAccessRights @145 :UInt32 $A.vmcs(0x0000481e) $A.hex;
  guestLdtrAccessRights @146 :UInt32 $A.vmcs(0x00004820) $A.hex;
  guestTrAccessRights @147 :UInt32 $A.vmcs(0x00004822) $A.hex;
  guestInterruptibilityState @148 :UInt32 $A.vmcs(0x00004824) $A.hex;
  guestActivityState @149 :UInt32 $A.vmcs(0x00004826) $A.hex;
  guestSmbase @150 :UInt32 $A.vmcs(0x00004828) $A.hex;
  guestIa32SysenterCs @151 :UInt32 $A.vmcs(0x0000482a) $A.hex;
  vmxPreemptionTimerValue @152 :UInt32 $A.vmcs(0x0000482e) $A.hex;
  # 32-bit host-state fields.
  hostIa32SysenterCs @153 :UInt32 $A.vmcs(0x00004c00) $A.hex;
  # natural control fields.
  cr0GuestHostMask @154 :UInt64 $A.vmcs(0x00006000) $A.hex;
  cr4GuestHostMask @155 :UInt64 $A.vmcs(0x00006002) $A.hex;
  cr0ReadShadow @156 :UInt64 $A.vmcs(0x00006004) $A.hex;
  cr4ReadShadow @157 :UInt64 $A.vmcs(0x00006006) $A.hex;
  cr3TargetValue0 @158 :UInt64 $A.vmcs(0x00006008) $A.hex;
  cr3TargetValue1 @159 :UInt64 $A.vmcs(0x0000600a) $A.hex;
  cr3TargetValue2 @160 :UInt64 $A.vmcs(0x0000600c) $A.hex;
  cr3TargetValue3 @161 :UInt64 $A.vmcs(0x0000600e) $A.hex;
  # natural read-only-data fields.
  exitQualification @162 :UInt64 $A.vmcs(0x00006400) $A.hex;
  ioRcx @163 :UInt64 $A.vmcs(0x00006402) $A.hex;
  ioRsi @164 :UInt64 $A.vmcs(0x00006404) $A.hex;
  ioRdi @165 :UInt64 $A.vmcs(0x00006406) $A.hex;
  ioRip @166 :UInt64 $A.vmcs(0x00006408) $A.hex;
  guestLinearAddress @167 :UInt64 $A.vmcs(0x0000640a) $A.hex;
  # natural guest-state fields.
  guestCr0 @168 :UInt64 $A.vmcs(0x00006800) $A.hex;
  guestCr3 @169 :UInt64 $A.vmcs(0x00006802) $A.hex;
  guestCr4 @170 :UInt64 $A.vmcs(0x00006804) $A.hex;
  guestEsBase @171 :UInt64 $A.vmcs(0x00006806) $A.hex;
  guestCsBase @172 :UInt64 $A.vmcs(0x00006808) $A.hex;
  guestSsBase @173 :UInt64 $A.vmcs(0x0000680a) $A.hex;
  guestDsBase @174 :UInt64 $A.vmcs(0x0000680c) $A.hex;
  guestFsBase @175 :UInt64 $A.vmcs(0x0000680e) $A.hex;
  guestGsBase @176 :UInt64 $A.vmcs(0x00006810) $A.hex;
  guestLdtrBase @177 :UInt64 $A.vmcs(0x00006812) $A.hex;
  guestTrBase @178 :UInt64 $A.vmcs(0x00006814) $A.hex;
  guestGdtrBase @179 :UInt64 $A.vmcs(0x00006816) $A.hex;
  guestIdtrBase @180 :UInt64 $A.vmcs(0x00006818) $A.hex;
  guestDr7 @181 :UInt64 $A.vmcs(0x0000681a) $A.hex;
  guestRsp @182 :UInt64 $A.vmcs(0x0000681c) $A.hex;
  guestRip @183 :UInt64 $A.vmcs(0x0000681e) $A.hex;
  guestRflags @184 :UInt64 $A.vmcs(0x00006820) $A.hex;
  guestPendingDebugExceptions @185 :UInt64 $A.vmcs(0x00006822) $A.hex;
  guestIa32SysenterEsp @186 :UInt64 $A.vmcs(0x00006824) $A.hex;
  guestIa32SysenterEip @187 :UInt64 $A.vmcs(0x00006826) $A.hex;
  guestSCet @188 :UInt64 $A.vmcs(0x00006828) $A.hex;
  guestSsp @189 :UInt64 $A.vmcs(0x0000682a) $A.hex;
  guestInterruptSspTableAddr @190 :UInt64 $A.vmcs(0x0000682c) $A.hex;
  # natural host-state fields.
  hostCr0 @191 :UInt64 $A.vmcs(0x00006c00) $A.hex;
  hostCr3 @192 :UInt64 $A.vmcs(0x00006c02) $A.hex;
  hostCr4 @193 :UInt64 $A.vmcs(0x00006c04) $A.hex;
  hostFsBase @194 :UInt64 $A.vmcs(0x00006c06) $A.hex;
  hostGsBase @195 :UInt64 $A.vmcs(0x00006c08) $A.hex;
  hostTrBase @196 :UInt64 $A.vmcs(0x00006c0a) $A.hex;
  hostGdtrBase @197 :UInt64 $A.vmcs(0x00006c0c) $A.hex;
  hostIdtrBase @198 :UInt64 $A.vmcs(0x00006c0e) $A.hex;
  hostIa32SysenterEsp @199 :UInt64 $A.vmcs(0x00006c10) $A.hex;
  hostIa32SysenterEip @200 :UInt64 $A.vmcs(0x00006c12) $A.hex;
  hostRsp @201 :UInt64 $A.vmcs(0x00006c14) $A.hex;
  hostRip @202 :UInt64 $A.vmcs(0x00006c16) $A.hex;
  hostSCet @203 :UInt64 $A.vmcs(0x00006c18) $A.hex;
  hostSsp @204 :UInt64 $A.vmcs(0x00006c1a) $A.hex;
  hostInterruptSspTableAddr @205 :UInt64 $A.vmcs(0x00006c1c) $A.hex;

  launchState @206 :Bool;
  # Clear or launched: set by VMLAUNCH, cleared by VMCLEAR.
}
